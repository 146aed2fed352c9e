"""Pods with a sidecar, run as their specifications say: who waits for whom, users, restarts, the end."""

from __future__ import annotations

import signal
from copy import deepcopy
from pathlib import Path

import grpc
import pytest

from abstractllm_api.v1 import models_pb2, models_pb2_grpc
from tests.deploy.helm.rehearsal import SWITCHES_USERS, Pod, rehearsed, secret
from tests.deploy.helm.rendering import Document, documents, pod_templates, server_container
from tests.deploy.helm.tokens import TOKEN, line
from tools.charts import VALUES, Charts

pytestmark = pytest.mark.timeout(1200)  # the first test may have to build Helm

SIDECAR = "abstractllm"
SCRIPTED = ("--set", "abstractllm.llms.words.provider=scripted,abstractllm.llms.words.reply=Here I am")


def pod_of(texts: list[Document], kind: str) -> Document:
    (pod,) = (spec for owner, spec in pod_templates(texts) if owner["kind"] == kind)
    return pod


@pytest.fixture
def copied(repository: Path) -> list[Document]:
    """The documents of the files to copy."""
    folder = repository / "deploy/kubernetes"
    return documents("\n---\n".join((folder / name).read_text("utf-8") for name in ("sidecar.yaml", "job.yaml")))


def first_line(pod: Pod) -> str:
    """The first line that the pod's program prints."""
    program = pod.start("program")
    assert program.stdout is not None
    return program.stdout.readline()


def test_a_program_waits_for_its_sidecar_and_goes_on_when_that_is_restarted(charts: Charts) -> None:
    texts = documents(charts.render("example", *SCRIPTED, "--set", "abstractllm.llms.words.load_delay=8"))
    with rehearsed(pod_of(texts, "Deployment"), texts) as pod:
        pod.start(SIDECAR)
        pod.wait_for(SIDECAR, "livenessProbe")
        # The program is not started yet: the model loads.
        assert not pod.ask(SIDECAR, "startupProbe")
        pod.wait_for(SIDECAR, "startupProbe")
        pod.end(SIDECAR, signal.SIGKILL)
        assert not pod.ask(SIDECAR, "livenessProbe")
        # What it left is taken over.
        assert (pod.volume("abstractllm-socket") / "abstractllm.sock").is_socket()
        pod.start(SIDECAR)
        pod.wait_for(SIDECAR, "startupProbe")
        assert "Here I am" in first_line(pod), pod.log("program")


def test_a_program_calls_its_sidecar_which_ends_after_it(copied: list[Document]) -> None:
    with rehearsed(pod_of(copied, "Deployment"), copied) as pod:
        pod.start(SIDECAR)
        pod.wait_for(SIDECAR, "startupProbe")
        # The model is loaded, and the first call is answered at once.
        assert pod.ask(SIDECAR, "readinessProbe") and pod.ask(SIDECAR, "livenessProbe")
        assert "Paris" in first_line(pod), pod.log("program")
        status, _ = pod.end("program")
        assert status == 0
        # Nobody is left: the sidecar does not use up its grace.
        status, seconds = pod.end(SIDECAR)
        assert status == 0 and seconds < 15
        assert not pod.ask(SIDECAR, "livenessProbe")


def test_a_job_ends_with_its_program(copied: list[Document]) -> None:
    texts, spec = copied, pod_of(copied, "Job")
    assert spec["restartPolicy"] == "Never"
    (sidecar,) = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    with rehearsed(spec, texts) as pod:
        pod.start(SIDECAR)
        pod.wait_for(SIDECAR, "startupProbe")
        printed, _ = pod.start("program").communicate(timeout=100)
        assert "12" in printed, pod.log("program")
        assert pod.end(SIDECAR)[0] == 0


@pytest.mark.skipif(not SWITCHES_USERS, reason="only root can run containers as their own users")
def test_a_program_without_the_group_of_the_socket_is_kept_out(charts: Charts) -> None:
    texts = documents(charts.render("example", *SCRIPTED))
    spec = deepcopy(pod_of(texts, "Job"))
    del spec["securityContext"]["supplementalGroups"]
    with rehearsed(spec, texts) as pod:
        pod.start(SIDECAR)
        pod.wait_for(SIDECAR, "startupProbe")
        program = pod.start("program")
        program.communicate(timeout=100)
        assert program.returncode != 0
        assert "Permission denied" in pod.log("program")


def test_a_sidecar_with_exec_probes_listens_on_no_address_of_the_pod(charts: Charts) -> None:
    texts = documents(charts.rendered(VALUES / "example-hosted-sidecar.yaml"))
    spec = pod_of(texts, "Deployment")
    assert "ports" not in server_container(spec)
    with rehearsed(spec, [*texts, secret("llm-tokens", tokens=line(TOKEN))]) as pod:
        pod.start("texts")
        pod.wait_for("texts", "startupProbe")
        assert pod.ask("texts", "livenessProbe")
        log = pod.log("texts")
        assert "listening on unix:" in log and "0.0.0.0" not in log
        with grpc.insecure_channel(f"unix:{pod.volume('texts-socket')}/abstractllm.sock") as channel:
            models = models_pb2_grpc.ModelServiceStub(channel)
            with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                models.ListLlms(models_pb2.ListLlmsRequest(), timeout=60)
            metadata = [("authorization", f"Bearer {TOKEN}")]
            answer = models.ListLlms(models_pb2.ListLlmsRequest(), timeout=60, metadata=metadata)
        assert [llm.name for llm in answer.llms] == ["gpt"]
