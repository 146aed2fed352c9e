"""The files to copy: valid for each version of Kubernetes, without rights, and fit for each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.helm.rehearsal import rehearsed
from tests.deploy.helm.rendering import Document, documents, pod_templates, server_container
from tests.deploy.helm.schemas import check
from tests.fake_hub import TOKEN, FakeHub

FILES = ("job.yaml", "pull-models.yaml", "shared-service.yaml", "sidecar.yaml")
VERSIONS = ("1.29", "1.30", "1.33", "1.37")


@pytest.fixture
def texts(repository: Path) -> dict[str, list[Document]]:
    folder = repository / "deploy/kubernetes"
    return {name: documents((folder / name).read_text("utf-8")) for name in FILES}


def test_each_file_is_known(repository: Path) -> None:
    folder = repository / "deploy/kubernetes"
    assert {path.name for path in folder.glob("*.yaml")} == {*FILES, "prometheus-adapter.yaml"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_valid(texts: dict[str, list[Document]], name: str) -> None:
    for document in texts[name]:
        for version in VERSIONS:
            check(document, version)


@pytest.mark.parametrize("name", FILES)
def test_every_container_has_no_rights_and_mounts_what_is_there(texts: dict[str, list[Document]], name: str) -> None:
    ((_, pod),) = pod_templates(texts[name])
    assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        context = container["securityContext"]
        assert context["runAsUser"] > 0 and context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]} and not context["allowPrivilegeEscalation"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_sidecars_of_both_files_are_one(texts: dict[str, list[Document]]) -> None:
    sidecars = []
    for name in ("sidecar.yaml", "job.yaml"):
        ((_, pod),) = pod_templates(texts[name])
        # The readiness of a pod that only runs to its end is nobody's business.
        sidecars.append({key: value for key, value in server_container(pod).items() if key != "readinessProbe"})
    assert sidecars[0] == sidecars[1]


def test_a_volume_is_filled_by_the_job(texts: dict[str, list[Document]], hub: FakeHub) -> None:
    hub.add("Qwen/Qwen3-0.6B")
    ((_, pod_spec),) = pod_templates(texts["pull-models.yaml"])
    with rehearsed(pod_spec, []) as pod:
        pull = pod.start("pull", {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN})
        pull.communicate(timeout=100)
        assert pull.returncode == 0, pod.log("pull")
        models = pod.volume("models") / "models"
        assert [path.name for path in models.glob("models--*")] == ["models--Qwen--Qwen3-0.6B"]
