"""Values that no golden rendering has: what an operator may combine is valid, or is refused by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.helm.rendering import Document, documents, only, pod_templates
from tests.deploy.helm.schemas import check
from tests.deploy.helm.test_values import GPT, OPEN, SIDECAR, refusal
from tests.deploy.helm.tokens import TOKEN, line
from tools.charts import CHARTS, Charts

pytestmark = pytest.mark.timeout(1200)  # the first test may have to build Helm

INSECURE: Document = {"auth": {"insecure": True}}
LABELS = {"team": "a", "release": "other", "app.kubernetes.io/component": "llm", "app.kubernetes.io/version": "9"}
MONITOR = {"enabled": True, "labels": {"release": "prometheus"}}


class StrictLoader(yaml.SafeLoader):
    """Reads YAML as Kubernetes does: keys are texts, and each is there once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        assert all(isinstance(key, str) for key in keys), f"{keys}{node.start_mark}"
        assert len(keys) == len(set(keys)), f"{keys}{node.start_mark}"
        return super().construct_mapping(node, deep)


def rendered(
    charts: Charts, folder: Path, values: Document, chart: str, release: str, namespace: str
) -> list[Document]:
    """The documents of a rendering, which are valid and have names that Kubernetes takes."""
    file = folder / "values.yaml"
    file.write_text(json.dumps(values), "utf-8")  # every text in quotes
    text = charts.run("template", release, chart, "--namespace", namespace, "--values", str(file))
    texts = [document for document in yaml.load_all(text, StrictLoader) if document]
    for document in texts:
        check(document, "1.37")
        name, labels = document["metadata"]["name"], document["metadata"].get("labels", {})
        if document["kind"] == "Service":
            assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name)
        assert all(len(value) <= 63 for value in labels.values())
    assert len({(document["kind"], document["metadata"]["name"]) for document in texts}) == len(texts)
    return texts


@pytest.mark.parametrize(
    "values",
    [
        {**INSECURE, "commonLabels": LABELS, "podLabels": {"team": "b"}, "monitoring": {"serviceMonitor": MONITOR}},
        {**INSECURE, "commonLabels": LABELS, "monitoring": {"prometheusRule": MONITOR, "dashboard": MONITOR}},
        {**INSECURE, "providerKeys": {"values": {"NO": "x", "Y": "y", "_1": "z"}}, "nameOverride": "true"},
        {
            "auth": {"tokens": {"existingSecret": "1", "key": "2"}},
            "tls": {
                "existingSecret": "3",
                "clientCA": {"existingSecret": "4", "key": "5"},
                "subjects": [{"name": 'a: "b" \\ c', "role": "admin"}],
            },
            "providerKeys": {"existingSecret": "6"},
            "models": {"cache": {"existingClaim": "7"}},
            "priorityClassName": "8",
            "runtimeClassName": "9",
            "serviceAccount": {"create": False, "name": "10"},
        },
        {
            "auth": {"tokens": {"file": line(TOKEN), "key": "123"}},
            "models": {"cache": {"size": "10", "storageClassName": "1e3"}},
        },
        {
            **INSECURE,
            **dict.fromkeys(("resources", "strategy", "securityContext", "podSecurityContext", "affinity", "llms")),
            **dict.fromkeys(("commonLabels", "tolerations", "topologySpreadConstraints", "extraEnv", "extraVolumes")),
            "providerKeys": {"values": None},
            "tls": {"certManager": {"enabled": True, "issuerRef": {"name": "i"}, "dnsNames": None}},
            "image": {"variant": "cuda"},
            "gpu": {"count": 1},
        },
        {
            "auth": {"tokens": {"existingSecret": "a"}},
            "tls": {
                "certManager": {"enabled": True, "issuerRef": {"name": "i"}, "duration": "1h30m", "renewBefore": "89m"},
                "clientCA": {"existingSecret": "c"},
                "subjects": [{"name": "a", "role": "admin"}],
            },
            "image": {"variant": "cuda", "repository": "registry.example:5000/team/llm"},
            "gpu": {"count": 1},
            "models": {"image": {"reference": "r:1", "subPath": "007"}, "offline": True},
            "tolerations": [{"operator": "Exists"}],
            "autoscaling": {"enabled": True, "minReplicas": 2},
            "podDisruptionBudget": {"minAvailable": "50%"},
            "networkPolicy": {"enabled": True, "scrapers": [{"namespaceSelector": {}}], "egress": []},
            "monitoring": {"serviceMonitor": {**MONITOR, "interval": "90s", "scrapeTimeout": "1m30s"}},
            "extraVolumes": [{"name": "x", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "x", "mountPath": "/x"}, {"name": "tmp", "mountPath": "/y"}],
        },
    ],
    ids=["labels", "labels-of-monitoring", "words", "numbers-as-names", "numbers-of-objects", "nothing", "all"],
)
def test_a_combination_is_valid(charts: Charts, tmp_path: Path, values: Document) -> None:
    texts = rendered(charts, tmp_path, values, "abstractllm", "llm", "123")
    deployment = only(texts, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for name, value in {**LABELS, **values.get("podLabels", {})}.items() if values.get("commonLabels") else ():
        assert labels[name] == value
    for text in texts:
        if text["kind"] == "ServiceMonitor":
            services = [other for other in texts if other["kind"] == "Service"]
            chosen = text["spec"]["selector"]["matchLabels"].items()
            assert [
                other["metadata"]["name"] for other in services if chosen <= other["metadata"]["labels"].items()
            ] == [only(texts, "Service", "-monitoring")["metadata"]["name"]]
        assert text["kind"] not in ("ServiceMonitor", "PrometheusRule") or "release" in text["metadata"]["labels"]


@pytest.mark.parametrize("release", ["1e3", "a.b", "a" * 53])
def test_a_sidecar_is_valid_under_any_name_of_a_release(charts: Charts, tmp_path: Path, release: str) -> None:
    values = {"sidecar": {"name": "123", "folder": "/run/llm/"}, "extraVolumes": [{"name": "tmp", "emptyDir": {}}]}
    values["providerKeys"] = {"values": {"ON": "x"}}
    texts = rendered(charts, tmp_path, {"abstractllm": values}, "example", release, "text")
    for _, pod in pod_templates(texts):
        (variable,) = pod["containers"][0]["env"]
        assert variable["value"] == "unix:/run/llm/abstractllm.sock"
        assert pod["initContainers"][0]["name"] == "123"


def test_long_names_that_differ_at_their_end_are_different(charts: Charts) -> None:
    names = []
    for ending in ("x", "y"):
        text = charts.run("template", "a" * 50, "abstractllm", "--set", f"{OPEN},nameOverride=texts-{ending}")
        names += re.findall(r'^  name: "(.*-config)"$', text, re.MULTILINE)
    assert len(set(names)) == 2 and all(len(name) <= 63 for name in names)


def test_what_a_user_says_of_labels_is_not_added_to(charts: Charts, tmp_path: Path) -> None:
    spread = {"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway"}
    chosen = {"matchExpressions": [{"key": "b", "operator": "Exists"}]}
    values = {**INSECURE, "topologySpreadConstraints": [spread, {**spread, "labelSelector": chosen}]}
    texts = rendered(charts, tmp_path, values, "abstractllm", "llm", "text")
    first, second = only(texts, "Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert second["labelSelector"] == chosen
    assert first["labelSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "llm"


def test_a_folder_for_temporary_files_may_be_another(charts: Charts, tmp_path: Path) -> None:
    values = {**INSECURE, "models": {"cache": {"existingClaim": "a"}}, "extraEnv": [{"name": "TMPDIR", "value": "/b"}]}
    texts = rendered(charts, tmp_path, values, "abstractllm", "llm", "text")
    (container,) = only(texts, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "TMPDIR", "value": "/b"}]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("fullnameOverride=a.b",), 'fullnameOverride: a Service cannot be named "a.b"'),
        (("fullnameOverride=1a",), 'fullnameOverride: a Service cannot be named "1a"'),
        (("podAnnotations.checksum/config=a",), "podAnnotations: checksum/config is set by this chart"),
        (("commonLabels.a b=c",), "at '/commonLabels': additional properties 'a b' not allowed"),
        (("podLabels.a=b c",), "at '/podLabels/a': 'b c' does not match pattern"),
        (("image.repository=llm:1",), "at '/image/repository': 'llm:1' does not match pattern"),
        (("form=null",), "missing property 'form'"),
        (("image.repository=null",), "at '/image': missing property 'repository'"),
        (("drain.graceSeconds=null",), "at '/drain': missing property 'graceSeconds'"),
        (("autoscaling=null",), "missing property 'autoscaling'"),
        (("tls.certManager.duration=90d",), "at '/tls/certManager/duration': '90d' does not match pattern"),
        (
            (
                "tls.certManager.enabled=true",
                "tls.certManager.issuerRef.name=a",
                "tls.certManager.duration=24h",
            ),
            "tls.certManager.renewBefore: is 720h, and must be less than duration, 24h",
        ),
        (
            ("monitoring.serviceMonitor.enabled=true", "monitoring.serviceMonitor.interval=5s"),
            "monitoring.serviceMonitor.scrapeTimeout: is 10s, and may not be more than interval, 5s",
        ),
        (("monitoring.serviceMonitor.interval=1s1m",), "at '/monitoring/serviceMonitor/interval'"),
        (
            (
                "networkPolicy.enabled=true",
                "networkPolicy.scrapers[0].podSelector.matchLabels.a=b",
                "monitoring.enabled=false",
            ),
            "networkPolicy.scrapers: there is nothing to scrape",
        ),
        (
            ("networkPolicy.enabled=true", "autoscaling.enabled=true"),
            "networkPolicy.scrapers: lets nobody in, so that Prometheus could not scrape what the autoscaler counts",
        ),
        (
            ("autoscaling.enabled=true", "autoscaling.behavior.scaleDown.stabilizationWindowSeconds=0"),
            "autoscaling.behavior: scaleDown.stabilizationWindowSeconds is set by autoscaling.scaleDownSeconds",
        ),
        (("autoscaling.waitingRequests=0m",), "at '/autoscaling/waitingRequests': '0m' does not match pattern"),
        (("podDisruptionBudget.maxUnavailable=0",), "podDisruptionBudget.maxUnavailable: is 0, so that no pod"),
        (("podDisruptionBudget.minAvailable=50%",), "podDisruptionBudget.minAvailable: is 50% of 1"),
        (("strategy.rollingUpdate.maxSurge=0",), "strategy.rollingUpdate: maxSurge and maxUnavailable are both 0"),
        (("strategy.type=Recreat",), "at '/strategy/type': value must be one of 'RollingUpdate', 'Recreate'"),
        (("resources.limit.cpu=1",), "at '/resources': additional properties 'limit' not allowed"),
        (("resources.limits.memory=2GB",), "at '/resources/limits/memory': '2GB' does not match pattern"),
        (
            ("resources.requests.memory=8Gi",),
            "resources.requests.memory: is 8Gi, more than resources.limits.memory, 2Gi",
        ),
        (("resources.limits.cpu=250m",), "resources.requests.cpu: is 500m, more than resources.limits.cpu, 250m"),
        (("resources.limits.memory=2e9",), "resources.requests.memory: is 2Gi, more than resources.limits.memory, 2e"),
        (("minReadySeconds=1800",), "minReadySeconds: is 1800, and must be less than progressDeadlineSeconds, 1800"),
        (("securityContext.runAsUser=0",), "securityContext.runAsUser: is 0, which runAsNonRoot keeps from running"),
        (("tolerations[0].keey=a",), "at '/tolerations/0': additional properties 'keey' not allowed"),
        (("extraVolumeMounts[0].name=tmp",), "at '/extraVolumeMounts/0': missing property 'mountPath'"),
        (
            ("extraVolumeMounts[0].name=x", "extraVolumeMounts[0].mountPath=/x"),
            "extraVolumeMounts: no volume is named x; see extraVolumes",
        ),
        (
            ("models.image.reference=a", "models.image.mountPath=/tmp"),
            "extraVolumeMounts: two volumes would be mounted at /tmp; see also models.image.mountPath",
        ),
        (("extraVolumes[0].name=x", "extraVolumes[1].name=x"), "extraVolumes: x is the name of a volume of this chart"),
        (("extraEnv[0].name=A", "extraEnv[1].name=A"), "extraEnv: A is there twice"),
        (
            ("models.offline=true", "extraEnv[0].name=HF_HUB_OFFLINE"),
            "extraEnv: HF_HUB_OFFLINE is set by models.offline",
        ),
        (("models.image.subPath=a",), "models.image.subPath: is of an image, and models.image.reference names none"),
        (
            ("models.cache.size=1Gi", "models.cache.accessModes={ReadOnlyMany}"),
            "models.cache.accessModes: nobody could write to the claim",
        ),
        (
            ("models.cache.size=1Gi", "models.cache.accessModes={ReadWriteOnce,ReadOnlyMany}", "replicas=2"),
            "models.cache.accessModes: several pods cannot share a claim of ReadWriteOnce, ReadOnlyMany",
        ),
        ((GPT, "llms.gpt.api_key=$${A}"), "llms.gpt.api_key: everybody who may read ConfigMaps would read it"),
    ],
)
def test_a_combination_that_cannot_work_is_refused_by_name(
    charts: Charts, settings: tuple[str, ...], words: str
) -> None:
    assert words in refusal(charts, OPEN, *settings)


def test_files_that_the_server_s_user_could_not_read_are_refused(charts: Charts) -> None:
    tokens = "auth.tokens.existingSecret=a"
    words = "podSecurityContext.fsGroup: is needed, so that the server's user can read tokens and certificates"
    assert words in refusal(charts, tokens, "podSecurityContext=null")
    assert words in refusal(charts, OPEN, "tls.existingSecret=a", "podSecurityContext.fsGroup=null")
    charts.render("abstractllm", "--set", f"{tokens},podSecurityContext=null,securityContext.runAsGroup=0")


def test_one_name_in_certificates_has_one_role(charts: Charts) -> None:
    subjects = [f"tls.subjects[{index}].{key}" for index in (0, 1) for key in ("name=x", "role=admin")]
    words = refusal(charts, "tls.existingSecret=a", "tls.clientCA.existingSecret=b", *subjects)
    assert "tls.subjects: x is there twice" in words


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "amd.com/gpu"])
def test_the_taint_of_nodes_with_gpus_is_tolerated(charts: Charts, resource: str) -> None:
    settings = f"{OPEN},image.variant=cuda,gpu.count=1,gpu.resource={resource},tolerations=null"
    pod = only(documents(charts.render("abstractllm", "--set", settings)), "Deployment")["spec"]["template"]["spec"]
    tolerated = {toleration["key"] for toleration in pod["tolerations"]}
    assert tolerated == {resource} | ({"nvidia.com/gpu"} if resource.startswith("nvidia.com/") else set())


def test_a_user_is_root_where_both_is_said(charts: Charts) -> None:
    charts.render("abstractllm", "--set", f"{OPEN},securityContext.runAsUser=0,securityContext.runAsNonRoot=false")


def test_a_sidecar_may_have_the_port_of_a_service(charts: Charts) -> None:
    charts.render("abstractllm", "--set", f"{SIDECAR},ports.health=50051")
    assert "ports: health and monitoring need two ports, not 9464 twice" in refusal(
        charts, SIDECAR, "ports.health=9464"
    )


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "podDisruptionBudget.minAvailable=1",
            "podDisruptionBudget.minAvailable: is of the pods that the sidecar is in",
        ),
        ("serviceAccount.name=a", "serviceAccount.name: is of the pod that the sidecar is in"),
        ("drain.terminationGracePeriodSeconds=99", "drain.terminationGracePeriodSeconds: is of the pod"),
        (
            "sidecar.folder=/tmp",
            "two volumes would be mounted at /tmp; see also models.image.mountPath and sidecar.folder",
        ),
    ],
)
def test_a_value_without_effect_on_a_sidecar_is_refused(charts: Charts, setting: str, words: str) -> None:
    assert words in refusal(charts, SIDECAR, setting)


def test_what_is_said_after_the_installation_can_be_done(charts: Charts, tmp_path: Path) -> None:
    shutil.copytree(CHARTS / "abstractllm", tmp_path / "abstractllm")
    notes = tmp_path / "abstractllm/templates/notes.yaml"
    notes.write_text('notes: {{ include "abstractllm/templates/NOTES.txt" . | toJson }}\n', "utf-8")

    def command(settings: str) -> str:
        shown = ("--show-only", "templates/notes.yaml")
        text = charts.run("template", "llm", "abstractllm", "--set", settings, *shown, folder=tmp_path)
        said = json.loads(text.partition("notes: ")[2])
        (line,) = (line.strip() for line in said.splitlines() if " generate " in line)
        return str(line)

    assert command(OPEN).startswith("abstractllm generate --address 127.0.0.1:50051 ")
    tokens = "auth.tokens.existingSecret=a,ports.grpc=6000"
    assert command(tokens).startswith("ABSTRACTLLM_TOKEN=... abstractllm generate --address 127.0.0.1:6000 ")
    mutual = "tls.existingSecret=b,tls.clientCA.existingSecret=c,tls.subjects[0].name=a,tls.subjects[0].role=admin"
    assert " --root-certificates ca.crt --certificate caller.crt --key caller.key " in command(mutual)
