"""The values of the chart: each is documented, others are refused by name, and so are contradictions."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from abstractllm.errors import ConfigurationError
from abstractllm_server.security.token_entries import read_entries
from abstractllm_server.settings import ServerSettings
from tests.deploy.helm.rendering import documents, only
from tests.deploy.helm.tokens import OTHER_TOKEN, TOKEN, line
from tools.chart_files import SET_BY_CHART, emit, rows
from tools.charts import CHARTS, Charts, HelmError
from tools.emit.provider_configurations import provider_configurations

pytestmark = pytest.mark.timeout(1200)  # the first test may have to build Helm

CHART = CHARTS / "abstractllm"
OPEN = "auth.insecure=true"
SIDECAR = "form=sidecar"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json.loads((CHART / "values.schema.json").read_text("utf-8"))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))  # type: ignore[no-any-return]


def tables(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields each table of values that has keys of its own, with its path."""
    yield path, schema
    for name, part in schema["properties"].items():
        if "properties" in part:
            yield from tables(part, f"{path}{name}.")


def test_every_value_has_a_default_a_description_and_a_row(schema: dict[str, Any], defaults: dict[str, Any]) -> None:
    page = (CHART / "README.md").read_text("utf-8")
    described = {name: description for name, _, description in rows(schema, defaults)}
    for name, description in described.items():
        assert description.endswith("."), name
        assert page.count(f"\n| `{name}` |") == 1
    assert len(described) > 80

    def leaves(values: Mapping[str, Any], part: Mapping[str, Any], path: str = "") -> Iterator[str]:
        for name, value in values.items():
            if part["properties"][name].get("properties") and path + name != "server":
                yield from leaves(value, part["properties"][name], f"{path}{name}.")
            else:
                yield f"{path}{name}"

    assert set(leaves(defaults, schema)) == set(described)


def test_no_table_takes_other_keys(schema: dict[str, Any]) -> None:
    for path, part in tables(schema):
        assert part["additionalProperties"] is False, path


def test_what_follows_from_elsewhere_is_up_to_date(repository: Path) -> None:
    stale = [str(path) for path, text in emit(repository).items() if (repository / path).read_text("utf-8") != text]
    assert stale == [], "make generate"


def test_every_key_of_the_server_is_a_value(schema: dict[str, Any]) -> None:
    assert schema["properties"]["server"]["properties"].keys() == ServerSettings.model_fields.keys() - SET_BY_CHART
    assert ServerSettings.model_fields.keys() >= SET_BY_CHART


def refusal(charts: Charts, *settings: str, files: Mapping[str, Path] | None = None) -> str:
    """The words with which Helm refuses values."""
    options = [word for setting in settings for word in ("--set", setting)]
    options += [word for name, path in (files or {}).items() for word in ("--set-file", f"{name}={path}")]
    with pytest.raises(HelmError) as refused:
        charts.render("abstractllm", *options)
    return str(refused.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("replcas=3", "additional properties 'replcas' not allowed"),
        ("drain.graceSecs=3", "at '/drain': additional properties 'graceSecs' not allowed"),
        ("server.max_conections=3", "at '/server': additional properties 'max_conections' not allowed"),
        ("server.listen=a", "at '/server': additional properties 'listen' not allowed"),
        ("gpu.count=one", "at '/gpu/count': got string, want integer"),
        ("image.variant=gpu", "at '/image/variant': value must be one of 'cpu', 'cuda', 'slim'"),
        ("image.digest=sha256:12", "at '/image/digest'"),
        ("drain.graceSeconds=601", "at '/drain/graceSeconds': maximum: got 601, want 600"),
        ("ports.grpc=70000", "at '/ports/grpc': maximum: got 70,000, want 65,535"),
        ("llms.a b.provider=openai", "at '/llms': additional properties 'a b' not allowed"),
        ("providerKeys.values.A-B=c", "at '/providerKeys/values': additional properties 'A-B' not allowed"),
        ("monitoring.serviceMonitor.interval=often", "at '/monitoring/serviceMonitor/interval'"),
        ("extraEnv[0].nmae=x", "at '/extraEnv/0'"),
        ("tls.subjects[0].name=x", "missing property 'role'"),
        ("form=daemon", "at '/form': value must be one of 'service', 'sidecar'"),
        ("models.cache.size=big", "at '/models/cache/size'"),
    ],
)
def test_a_value_that_there_is_not_is_refused_by_name(charts: Charts, setting: str, words: str) -> None:
    assert words in refusal(charts, OPEN, setting)


GPT = "llms.gpt.provider=openai"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((), "auth: say who may call"),
        ((OPEN, "auth.tokens.existingSecret=a"), "auth.insecure: contradicts"),
        (("auth.tokens.existingSecret=a", "auth.tokens.file=b"), "auth.tokens: set existingSecret or file, not both"),
        (("auth.tokens.file=secret-token",), "auth.tokens.file: has no line as `abstractllm token create --file`"),
        (("tls.clientCA.existingSecret=a",), "tls.clientCA: callers bring certificates only over TLS"),
        (("tls.clientCA.existingSecret=a", "tls.existingSecret=b"), "tls.clientCA: callers need roles"),
        (
            (OPEN, "tls.subjects[0].name=a", "tls.subjects[0].role=admin"),
            "tls.subjects: callers bring certificates only",
        ),
        (
            (OPEN, "tls.existingSecret=a", "tls.certManager.enabled=true", "tls.certManager.issuerRef.name=b"),
            "not both",
        ),
        ((OPEN, "tls.certManager.enabled=true"), "tls.certManager.issuerRef: name the issuer"),
        ((OPEN, "llms.a.provider=scripted", "llms.b.provider=scripted"), "default: say which of a, b is meant"),
        ((OPEN, "default=other"), 'default: no LLM is named "other"; there are local'),
        ((OPEN, "preload[0]=other"), 'preload: no LLM is named "other"'),
        ((OPEN, "llms.a.model=x"), "llms.a.provider: is missing"),
        ((OPEN, "llms.a=x"), "llms.a: must be a table of keys"),
        ((OPEN, GPT, "llms.gpt.api_key=sk-1"), "llms.gpt.api_key: everybody who may read ConfigMaps would read it"),
        ((OPEN, GPT, "llms.gpt.extra_headers.X-Token=1"), "llms.gpt.extra_headers: everybody who may read ConfigMaps"),
        ((OPEN, GPT, "llms.gpt.api_key=${KEY}"), "llms: ${KEY} is set by nothing"),
        ((OPEN, GPT, "llms.gpt.api_key=${KEY}", "extraEnv[0].name=KAY"), "llms: ${KEY} is set by nothing"),
        (
            (OPEN, "providerKeys.existingSecret=a", "providerKeys.values.A=b"),
            "providerKeys: set existingSecret or values",
        ),
        ((OPEN, "image.variant=slim"), "image.variant: slim has no PyTorch, which llms.local"),
        ((OPEN, "image.variant=cuda"), "gpu.count: is 0, and image.variant cuda needs one or more"),
        ((OPEN, "gpu.count=2"), "gpu.count: is 2, and image.variant cpu uses none"),
        ((OPEN, "resources.limits.nvidia\\.com/gpu=1"), "resources.limits: nvidia.com/gpu is set by gpu.count"),
        (
            (OPEN, "ports.health=50051"),
            "ports: grpc, health and monitoring need three ports, not 50051, 50051 and 9464",
        ),
        ((OPEN, "extraEnv[0].name=ABSTRACTLLM_HEALTH"), "extraEnv: ABSTRACTLLM_HEALTH has no effect"),
        (
            (OPEN, "podLabels.app\\.kubernetes\\.io/name=x"),
            "podLabels: app.kubernetes.io/name is what the pods are selected",
        ),
        ((OPEN, "extraVolumes[0].name=cache"), "extraVolumes: cache is the name of a volume of this chart"),
        ((OPEN, "models.cache.size=1Gi", "models.cache.existingClaim=a"), "models.cache: set existingClaim or size"),
        (
            (OPEN, "models.cache.sizeLimit=1Gi", "models.cache.existingClaim=a"),
            "models.cache.sizeLimit: is of an emptyDir",
        ),
        (
            (OPEN, "models.cache.size=1Gi", "models.cache.accessModes={ReadWriteOnce}", "replicas=2"),
            "models.cache.accessModes: several pods cannot share a claim of ReadWriteOnce",
        ),
        (
            (OPEN, "drain.terminationGracePeriodSeconds=26"),
            "drain.terminationGracePeriodSeconds: is 26, and preStopSeconds (5), graceSeconds (20) and two need 27",
        ),
        ((OPEN, "autoscaling.enabled=true", "replicas=2"), "replicas: is the autoscaler's business"),
        (
            (OPEN, "autoscaling.enabled=true", "autoscaling.minReplicas=5"),
            "autoscaling.minReplicas: is 5, more than maxReplicas, 4",
        ),
        (
            (OPEN, "autoscaling.enabled=true", "monitoring.enabled=false"),
            "autoscaling: the metric of the waiting requests",
        ),
        ((OPEN, "podDisruptionBudget.minAvailable=1"), "podDisruptionBudget.minAvailable: is 1 of 1, so that no pod"),
        ((OPEN, "podDisruptionBudget.minAvailable=100%"), "podDisruptionBudget.minAvailable: is 100% of 1"),
        (
            (OPEN, "replicas=5", "podDisruptionBudget.minAvailable=1", "podDisruptionBudget.maxUnavailable=1"),
            "podDisruptionBudget: set minAvailable or maxUnavailable, not both",
        ),
        ((OPEN, "monitoring.enabled=false", "monitoring.serviceMonitor.enabled=true"), "there is nothing to scrape"),
        (
            (OPEN, "networkPolicy.enabled=true", "monitoring.serviceMonitor.enabled=true"),
            "networkPolicy.scrapers: lets nobody in",
        ),
        ((OPEN, "networkPolicy.enabled=true", "networkPolicy.callers=null"), "networkPolicy.callers: lets nobody in"),
        ((SIDECAR, OPEN), "auth.insecure: a sidecar's unix socket needs no credentials"),
        ((SIDECAR, "tls.existingSecret=a"), "tls: a unix socket cannot have TLS"),
        ((SIDECAR, "replicas=2"), "replicas: a sidecar has those of its pod"),
        ((SIDECAR, "autoscaling.enabled=true"), "autoscaling: a sidecar is scaled with its pod"),
        ((SIDECAR, "networkPolicy.enabled=true"), "networkPolicy: is of the pods that the sidecar is in"),
        ((SIDECAR, "monitoring.dashboard.enabled=true"), "monitoring.dashboard: is of the shared service"),
        ((SIDECAR, "runtimeClassName=nvidia"), "runtimeClassName: is of the pod that the sidecar is in"),
        ((SIDECAR, "image.pullSecrets[0].name=a"), "image.pullSecrets: are of the pod that the sidecar is in"),
        ((SIDECAR, "service.annotations.a=b"), "service.annotations: a sidecar has no Service"),
        ((SIDECAR, "sidecar.probes=exec"), "sidecar.waitFor: the image's check asks only if the server is alive"),
        ((SIDECAR, f"sidecar.folder=/{'a' * 90}"), "sidecar.folder: is too long"),
    ],
)
def test_values_that_contradict_each_other_are_refused(charts: Charts, settings: tuple[str, ...], words: str) -> None:
    assert words in refusal(charts, *settings)


def test_all_contradictions_are_told_at_once(charts: Charts) -> None:
    told = refusal(charts, "gpu.count=1", "default=x", "drain.terminationGracePeriodSeconds=1")
    assert told.count("\n  - ") == 4


def test_an_image_volume_is_refused_where_kubernetes_has_none(charts: Charts) -> None:
    options = ("--set", f"{OPEN},models.image.reference=a", "--kube-version", "1.30")
    with pytest.raises(HelmError, match=r"models\.image: needs Kubernetes 1\.35, or 1\.31 with the feature gate"):
        charts.render("abstractllm", *options)


def test_a_file_of_tokens_is_taken_from_the_command_line(charts: Charts, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(line(TOKEN))
    texts = documents(charts.render("abstractllm", "--set-file", f"auth.tokens.file={file}"))
    assert only(texts, "Secret")["metadata"]["name"] == "llm-abstractllm-tokens"
    file.write_text(TOKEN)
    assert "has no line as" in refusal(charts, files={"auth.tokens.file": file})


def test_a_file_of_tokens_is_taken_where_the_server_takes_it(charts: Charts, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    secret = hashlib.sha256(TOKEN.encode()).hexdigest()
    texts = {
        f"# them\n\n  {secret.upper()} admin expires=2027-01-01 label # why\r\n": "",
        f"\ufeff{line(TOKEN)}": "",
        "none  # yet": "",
        line(TOKEN) + OTHER_TOKEN: "line 2 is no SHA-256 and role",
        f"{line(TOKEN)}\n{line(OTHER_TOKEN, 'root')}": "line 3 is no SHA-256 and role",
        f"{secret} admin backend expires=2027-01-01": "line 1 has an expires=",
        f"{secret} admin Expires=2027-01-01": "line 1 has an expires=",
        f"{secret} admin expires=soon": "line 1 has an expires=",
        f"{secret} admin expires=2027-01-01T10:00:00Z a b # or expires=": "",
    }
    for text, words in texts.items():
        file.write_text(text, "utf-8", newline="")
        try:
            read_entries(file)
            is_taken = True
        except ConfigurationError:
            is_taken = False
        assert is_taken == (not words)
        if is_taken:
            charts.render("abstractllm", "--set-file", f"auth.tokens.file={file}")
            continue
        told = refusal(charts, files={"auth.tokens.file": file})
        assert f"auth.tokens.file: {words}" in told
        assert OTHER_TOKEN not in told


def test_a_chart_that_includes_the_sidecar_must_say_so(charts: Charts) -> None:
    with pytest.raises(HelmError, match=r"form: set it to sidecar, in the values of the dependency"):
        charts.render("example", "--set", f"abstractllm.form=service,abstractllm.{OPEN}")


def test_values_of_a_dependency_are_checked_too(charts: Charts) -> None:
    with pytest.raises(HelmError, match="additional properties 'waitfor' not allowed"):
        charts.render("example", "--set", "abstractllm.sidecar.waitfor=alive")


def test_pods_are_replaced_when_what_they_read_at_their_start_changes(charts: Charts) -> None:
    def annotations(*settings: str) -> dict[str, str]:
        options = [word for setting in (OPEN, *settings) for word in ("--set", setting)]
        template = only(documents(charts.render("abstractllm", *options)), "Deployment")["spec"]["template"]
        return template["metadata"]["annotations"]  # type: ignore[no-any-return]

    assert annotations() == annotations()
    assert annotations("llms.local.provider=huggingface") != annotations()
    assert annotations("server.log_level=debug") != annotations()
    keys = [annotations(f"providerKeys.values.A={value}") for value in "bc"]
    assert keys[0]["checksum/provider-keys"] != keys[1]["checksum/provider-keys"]
    assert keys[0]["checksum/config"] == keys[1]["checksum/config"]


def test_keys_of_providers_are_those_that_the_chart_keeps_out_of_a_configmap() -> None:
    secret_keys = {
        name
        for config in provider_configurations().values()
        for name, field in config.model_fields.items()
        if "SecretStr" in repr(field.annotation)
    }
    assert secret_keys == {"api_key", "extra_headers"}
    checks = (CHART / "templates/_check.tpl").read_text("utf-8")
    assert all(f"$llm.{key}" in checks for key in secret_keys)


def test_the_values_that_the_readme_shows_are_taken(charts: Charts, tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (CHART / "README.md").read_text("utf-8"), re.DOTALL)
    file = tmp_path / "values.yaml"
    file.write_text(block)
    options = ("--set", "auth.tokens.existingSecret=llm-tokens", "--values", str(file))
    assert only(documents(charts.render("abstractllm", *options)), "Deployment")["spec"]["replicas"] == 2


def test_the_templates_of_a_sidecar_are_those_that_the_readme_lists() -> None:
    defined = set(re.findall(r'define "(abstractllm\.sidecar[\w.]*)"', (CHART / "templates/_sidecar.tpl").read_text()))
    listed = set(re.findall(r"^\| `(abstractllm\.sidecar[\w.]*)` \|", (CHART / "README.md").read_text(), re.MULTILINE))
    assert defined - {"abstractllm.sidecar.probes"} == listed


def test_a_dependency_may_have_another_name(charts: Charts, tmp_path: Path) -> None:
    for name in ("abstractllm", "example"):
        shutil.copytree(CHARTS / name, tmp_path / name, ignore=shutil.ignore_patterns("charts"))
    chart = tmp_path / "example"
    text = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(
        text.replace("  - name: abstractllm\n", "  - name: abstractllm\n    alias: texts\n")
    )
    for file in (chart / "values.yaml", *(chart / "templates").iterdir()):
        file.write_text(
            file.read_text().replace(".Subcharts.abstractllm", ".Subcharts.texts").replace("\nabstractllm:", "\ntexts:")
        )
    charts.run("dependency", "update", "example", folder=tmp_path)
    texts = documents(charts.run("template", "shop", "example", folder=tmp_path))
    volumes = only(texts, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "abstractllm-config", "configMap": {"name": "shop-texts-config"}} in volumes
    assert only(texts, "ConfigMap", "-texts-config")
    for file in (chart / "Chart.yaml", chart / "values.yaml", *(chart / "templates").iterdir()):
        file.write_text(re.sub(r"\btexts\b", "longTexts", file.read_text()))
    charts.run("dependency", "update", "example", folder=tmp_path)
    with pytest.raises(HelmError, match='nameOverride: objects cannot be named "shop-longTexts"'):
        charts.run("template", "shop", "example", folder=tmp_path)
    named = ("--set", "longTexts.nameOverride=long-texts")
    assert only(
        documents(charts.run("template", "shop", "example", *named, folder=tmp_path)), "ConfigMap", "-texts-config"
    )
