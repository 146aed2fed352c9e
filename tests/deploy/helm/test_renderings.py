"""Renderings of the charts: equal to the golden files, and valid by the schemas of Kubernetes and its extensions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.deploy.helm.rendering import Document, documents, only, pod_templates
from tests.deploy.helm.schemas import check
from tests.promql import parse
from tests.unit.test_alert_rules import known_labels
from tools.charts import CHARTS, GOLDEN, VALUES, Charts, value_files

pytestmark = pytest.mark.timeout(1200)  # the first test may have to build Helm

VERSIONS = ("1.30", "1.33", "1.35", "1.37")
"""Of Kubernetes: the oldest that the chart takes, the first with native sidecars for good, and the latest."""
FILES = value_files()


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def rendering(charts: Charts, request: pytest.FixtureRequest) -> list[Document]:
    """The documents of each file of values."""
    return documents(charts.rendered(request.param))


def test_there_are_a_dozen_files_of_values_and_no_rendering_without_one() -> None:
    assert len(FILES) >= 12
    assert {path.name for path in GOLDEN.glob("*")} == {path.name for path in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_rendering_is_as_it_was(charts: Charts, file: Path) -> None:
    assert charts.golden(file) == (GOLDEN / file.name).read_text("utf-8"), "python -m tools.charts --write"


def test_a_rendering_is_valid_for_each_version_of_kubernetes(rendering: list[Document]) -> None:
    for document in rendering:
        for version in VERSIONS:
            if "model-image" in json.dumps(document) and version == "1.30":
                continue  # the chart refuses it there
            check(document, version)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"replicas": "two"}},
        {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "b", "prots": []}]}}}},
    ],
)
def test_a_fault_in_a_rendering_is_noticed(charts: Charts, change: Document) -> None:
    deployment = only(documents(charts.rendered(FILES[0])), "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        check({**deployment, "spec": {**deployment["spec"], **change["spec"]}}, VERSIONS[-1])


def test_a_fault_in_a_custom_resource_is_noticed() -> None:
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": "a"},
        "spec": {"selector": {}, "endpoints": [{"port": "a", "intreval": "15s"}]},
    }
    with pytest.raises(Exception, match="intreval"):
        check(document, VERSIONS[-1])


def test_the_chart_refuses_a_cluster_that_is_too_old(charts: Charts) -> None:
    with pytest.raises(Exception, match=r"kubeVersion: >=1\.30"):
        charts.render("abstractllm", "--set", "auth.insecure=true", "--kube-version", "1.29")
    assert yaml.safe_load((CHARTS / "abstractllm/Chart.yaml").read_text())["kubeVersion"] == f">={VERSIONS[0]}.0-0"


def test_every_container_has_no_rights(rendering: list[Document]) -> None:
    pods = [pod for _, pod in pod_templates(rendering)]
    assert pods
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            context = container["securityContext"]
            assert context.get("runAsUser", 1) > 0 and context["readOnlyRootFilesystem"]
            assert context["capabilities"] == {"drop": ["ALL"]} and not context["allowPrivilegeEscalation"]


def test_what_a_pod_mounts_is_there_and_selectors_select_it(rendering: list[Document]) -> None:
    for owner, pod in pod_templates(rendering):
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
    for text in rendering:
        if text["kind"] == "Service":
            ((_, pod),) = pod_templates(rendering)
            names = {port["name"] for port in pod["containers"][0]["ports"]}
            assert {port["targetPort"] for port in text["spec"]["ports"]} <= names


def test_alerts_and_dashboard_are_those_of_their_folders(charts: Charts, repository: Path) -> None:
    texts = documents(charts.rendered(VALUES / "monitoring.yaml"))
    alerts = yaml.safe_load((repository / "deploy/prometheus/alerts.yaml").read_text("utf-8"))
    assert only(texts, "PrometheusRule")["spec"] == alerts
    dashboard = (repository / "deploy/grafana/abstractllm.json").read_text("utf-8")
    assert json.loads(only(texts, "ConfigMap", "-dashboard")["data"]["abstractllm.json"]) == json.loads(dashboard)
    # The job that the alerts look for.
    (endpoint,) = only(texts, "ServiceMonitor")["spec"]["endpoints"]
    (relabeling,) = endpoint["relabelings"]
    jobs = {name for rule in alerts["groups"][0]["rules"] for name in re.findall(r'job="([^"]*)"', rule["expr"])}
    assert jobs == {relabeling["replacement"]} and relabeling["targetLabel"] == "job"


def test_the_autoscaler_reads_the_metric_of_the_adapter(charts: Charts, repository: Path) -> None:
    adapter = yaml.safe_load((repository / "deploy/kubernetes/prometheus-adapter.yaml").read_text("utf-8"))
    (rule,) = adapter["rules"]["custom"]
    metric, *_ = only(documents(charts.rendered(VALUES / "autoscaling.yaml")), "HorizontalPodAutoscaler")["spec"][
        "metrics"
    ]
    assert metric["pods"]["metric"] == {"name": rule["name"]["as"]}
    # As the adapter puts it together for the pods of a namespace.
    query = rule["metricsQuery"].replace("<<.Series>>", re.match(r"\w+", rule["seriesQuery"])[0])  # type: ignore[index]
    query = query.replace("<<.LabelMatchers>>", 'namespace="a",pod=~"b"').replace("<<.GroupBy>>", "pod")
    for text in (query, rule["seriesQuery"]):
        for name, labels in parse(text).selectors:
            assert labels <= known_labels()[name] | {"namespace", "pod"}
