"""The pod of the shared service, run as its specification says: probes, callers, changed secrets, the drain."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import generation_pb2_grpc, models_pb2, models_pb2_grpc
from tests.deploy.helm.rehearsal import Pod, rehearsed, secret
from tests.deploy.helm.rendering import Document, documents, only
from tests.deploy.helm.tokens import OTHER_TOKEN, TOKEN, line
from tests.server.certificates import Authority
from tests.waiting import wait_until
from tools.charts import VALUES, Charts

pytestmark = pytest.mark.timeout(1200)  # the first test may have to build Helm

NAME = "abstractllm"
GRACE = 8
SCRIPTED = ("--set", "llms.words.provider=scripted")


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


@pytest.fixture
def pod(charts: Charts, request: pytest.FixtureRequest) -> Iterator[Pod]:
    """A pod with tokens, which lets answers end for some seconds; a parameter is how long its LLM loads."""
    loads = ("--set", f"llms.words.load_delay={getattr(request, 'param', 0)}")
    options = (*SCRIPTED, *loads, "--set", f"auth.tokens.existingSecret=llm-tokens,drain.graceSeconds={GRACE}")
    texts = documents(charts.render("abstractllm", *options))
    spec = only(texts, "Deployment")["spec"]["template"]["spec"]
    with rehearsed(spec, [*texts, secret("llm-tokens", tokens=line(TOKEN))]) as pod:
        pod.start(NAME)
        yield pod


@pytest.fixture
def channel(pod: Pod) -> Iterator[grpc.Channel]:
    """A channel to the port for callers, once the pod is ready."""
    pod.wait_for(NAME, "readinessProbe")
    with grpc.insecure_channel(f"127.0.0.1:{pod.ports['50051']}") as channel:
        yield channel


def stream(channel: grpc.Channel, words: int, delay: float, token: str = TOKEN) -> Any:
    """A stream of so many words, of which the first has come."""
    request = pb.GenerateRequest(prompt="a")
    request.provider_options.update({"reply": "word " * words, "delay": delay})
    answers = generation_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(
        request, timeout=100, metadata=bearer(token)
    )
    while not next(answers).HasField("text_delta"):
        pass
    return answers


@pytest.mark.parametrize("pod", [10], indirect=True)
def test_a_pod_is_alive_before_it_is_ready(pod: Pod) -> None:
    pod.wait_for(NAME, "startupProbe")
    assert pod.ask(NAME, "livenessProbe")
    assert not pod.ask(NAME, "readinessProbe")  # the LLM loads
    pod.wait_for(NAME, "readinessProbe")
    with urllib.request.urlopen(f"http://127.0.0.1:{pod.ports['9464']}/metrics", timeout=30) as answer:
        assert b"abstractllm_llm_ready" in answer.read()


def test_the_drain_fits_into_the_time_that_the_pod_has(pod: Pod, channel: grpc.Channel) -> None:
    short, long = stream(channel, 8, 0.25), stream(channel, 1000, 0.25)
    pieces: list[Any] = []
    reader = threading.Thread(target=lambda: pieces.extend(short))
    reader.start()
    seen: list[tuple[bool, bool]] = []

    def watch() -> None:
        time.sleep(1)
        seen.append((pod.ask(NAME, "livenessProbe"), pod.ask(NAME, "readinessProbe")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status, seconds = pod.end(NAME)
    reader.join(60)
    watcher.join(60)
    assert status == 0
    # During the drain nothing restarts the container, and nothing sends it calls.
    assert seen == [(True, False)]
    # One answer had the time to end; the other is told why it ended.
    assert pieces[-1].HasField("finished")
    with pytest.raises(grpc.RpcError) as ended:
        list(long)
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    hook = pod.spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert GRACE - 1 < seconds < pod.spec["terminationGracePeriodSeconds"] - hook


def test_a_changed_secret_is_taken_over_without_a_restart(pod: Pod, channel: grpc.Channel) -> None:
    models = models_pb2_grpc.ModelServiceStub(channel)

    def accepts(token: str) -> bool:
        try:
            models.ListLlms(models_pb2.ListLlmsRequest(), timeout=60, metadata=bearer(token))
        except grpc.RpcError as error:
            return error.code() is not grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined,no-any-return]
        return True

    assert accepts(TOKEN) and not accepts(OTHER_TOKEN)
    pod.write("tokens", {"tokens": line(OTHER_TOKEN)})
    wait_until(lambda: accepts(OTHER_TOKEN))
    assert not accepts(TOKEN)


def test_mutual_tls_gives_roles_in_the_order_of_the_values(charts: Charts, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.sign("llm", host="localhost")
    options = (*SCRIPTED, "--values", str(VALUES / "mutual-tls.yaml"))
    texts = documents(charts.render("abstractllm", *options))
    files = {"tls.crt": server.certificate.read_text(), "tls.key": server.key.read_text()}
    objects = [secret("llm-tls", **files), secret("callers", **{"roots.crt": authority.pair.certificate.read_text()})]
    spec = only(texts, "Deployment")["spec"]["template"]["spec"]
    with rehearsed(spec, [*texts, *objects]) as pod:
        pod.start(NAME)
        pod.wait_for(NAME, "readinessProbe")  # plain and without credentials, as the kubelet asks
        # Both names of the certificate are in the values, and the operator's comes first.
        both = authority.sign("both", alternatives="DNS:backend,URI:spiffe://mesh/operator")
        backend = authority.sign("backend", alternatives="DNS:backend")
        for caller, status in ((both, grpc.StatusCode.OK), (backend, grpc.StatusCode.PERMISSION_DENIED)):
            assert status_of_administration(pod, authority, caller) is status
        assert "SECURITY" not in pod.log(NAME)


def status_of_administration(pod: Pod, authority: Authority, caller: Any) -> grpc.StatusCode:
    """Returns the status of a call that administrators alone may make."""
    roots = authority.pair.certificate.read_bytes()
    credentials = grpc.ssl_channel_credentials(roots, caller.key.read_bytes(), caller.certificate.read_bytes())
    with grpc.secure_channel(f"localhost:{pod.ports['50051']}", credentials) as channel:
        call = models_pb2_grpc.ModelServiceStub(channel).ListCachedModels
        try:
            call(models_pb2.ListCachedModelsRequest(), timeout=60)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined,no-any-return]
    return grpc.StatusCode.OK


def test_the_file_to_copy_serves_with_the_tokens_of_its_secret(repository: Path) -> None:
    texts = documents((repository / "deploy/kubernetes/shared-service.yaml").read_text("utf-8"))
    spec = only(texts, "Deployment")["spec"]["template"]["spec"]
    with rehearsed(spec, [*texts, secret("llm-tokens", tokens=line(TOKEN))]) as pod:
        pod.start(NAME)
        pod.wait_for(NAME, "startupProbe")
        pod.wait_for(NAME, "readinessProbe")
        with grpc.insecure_channel(f"127.0.0.1:{pod.ports['50051']}") as channel:
            generation = generation_pb2_grpc.GenerationServiceStub(channel)
            request = pb.GenerateRequest(prompt="What is the capital of France?")
            assert "Paris" in generation.Generate(request, timeout=100, metadata=bearer(TOKEN)).text
        assert pod.end(NAME)[0] == 0


def test_time_for_the_end_is_the_sum_of_its_parts(charts: Charts, repository: Path) -> None:
    def parts(texts: list[Document]) -> tuple[int, int, int]:
        spec = only(texts, "Deployment")["spec"]["template"]["spec"]
        hook = spec["containers"][0].get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})
        grace = only(texts, "ConfigMap")["data"]["llms.yaml"].partition("grace: ")[2].partition("s\n")[0]
        return hook["preStop"]["sleep"]["seconds"], int(grace), spec["terminationGracePeriodSeconds"]

    assert parts(documents(charts.rendered(VALUES / "demo.yaml"))) == (5, 20, 30)
    assert parts(documents(charts.rendered(VALUES / "tokens-of-a-secret.yaml"))) == (10, 120, 135)
    assert parts(documents(charts.rendered(VALUES / "mesh.yaml"))) == (0, 300, 302)
    assert parts(documents((repository / "deploy/kubernetes/shared-service.yaml").read_text("utf-8"))) == (5, 20, 30)
