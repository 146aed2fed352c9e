"""Renderings of the charts: equal to the golden files, and valid by the schemas of Kubernetes and its extensions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.helm import custom_resources
from tests.deploy.helm.rendering import documents, pod_templates
from tools.charts import CHARTS, GOLDEN, Charts, value_files

pytestmark = pytest.mark.timeout(1200)  # the first test may have to build Helm

VERSIONS = ("1.30", "1.33", "1.35", "1.37")
"""Of Kubernetes: the oldest that the chart takes, the first with native sidecars for good, and the latest."""
FILES = value_files()


def read(file: Path) -> list[dict[str, Any]]:
    return documents((GOLDEN / file.name).read_text("utf-8"))


def faults(document: dict[str, Any], version: str) -> None:
    """Fails where a document is not as a schema says, or has a key that the schema does not know."""
    if document["apiVersion"] in custom_resources.GROUPS:
        custom_resources.check(document)
    else:
        kubernetes_validate.validate(document, version, strict=True)


def test_there_are_a_dozen_files_of_values_and_no_rendering_without_one() -> None:
    assert len(FILES) >= 12
    assert {path.name for path in GOLDEN.glob("*")} == {path.name for path in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_rendering_is_as_it_was(charts: Charts, file: Path) -> None:
    assert charts.golden(file) == (GOLDEN / file.name).read_text("utf-8"), "python -m tools.charts --write"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_rendering_is_valid_for_each_version_of_kubernetes(file: Path) -> None:
    for document in read(file):
        for version in VERSIONS:
            if "model-image" in json.dumps(document) and version == "1.30":
                continue  # the chart refuses it there
            faults(document, version)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"replicas": "two"}},
        {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "b", "prots": []}]}}}},
    ],
)
def test_a_fault_in_a_rendering_is_noticed(change: dict[str, Any]) -> None:
    (deployment,) = (document for document in read(FILES[0]) if document["kind"] == "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        faults({**deployment, "spec": {**deployment["spec"], **change["spec"]}}, VERSIONS[-1])


def test_a_fault_in_a_custom_resource_is_noticed() -> None:
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": "a"},
        "spec": {"selector": {}, "endpoints": [{"port": "a", "intreval": "15s"}]},
    }
    with pytest.raises(Exception, match="intreval"):
        faults(document, VERSIONS[-1])


def test_the_chart_refuses_a_cluster_that_is_too_old(charts: Charts) -> None:
    with pytest.raises(Exception, match=r"kubeVersion: >=1\.30"):
        charts.render("abstractllm", "--set", "auth.insecure=true", "--kube-version", "1.29")
    assert yaml.safe_load((CHARTS / "abstractllm/Chart.yaml").read_text())["kubeVersion"] == f">={VERSIONS[0]}.0-0"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_container_has_no_rights(file: Path) -> None:
    pods = [pod for _, pod in pod_templates(read(file))]
    assert pods
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            context = container["securityContext"]
            assert context["runAsUser"] > 0 and context["readOnlyRootFilesystem"]
            assert context["capabilities"] == {"drop": ["ALL"]} and not context["allowPrivilegeEscalation"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_a_pod_mounts_is_there_and_selectors_select_it(file: Path) -> None:
    texts = read(file)
    for owner, pod in pod_templates(texts):
        volumes = [volume["name"] for volume in pod["volumes"]]
        assert len(volumes) == len(set(volumes))
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
            assert len(mounts) == len(set(mounts))
            names = [port["name"] for port in container.get("ports", ())]
            assert len(names) == len(set(names)) and all(len(name) <= 15 for name in names)
        labels = owner["spec"]["template"]["metadata"]["labels"]
        if owner["kind"] == "Deployment":
            assert owner["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for text in texts:
        if text["kind"] == "Service":
            ((_, pod),) = pod_templates(texts)
            names = {port["name"] for port in pod["containers"][0]["ports"]}
            assert {port["targetPort"] for port in text["spec"]["ports"]} <= names
