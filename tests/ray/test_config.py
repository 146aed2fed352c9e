"""The configuration of an LLM on Ray Serve: that of the LLM, and the keys of its replicas; Ray is not started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from abstractllm import create_llm
from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface import HuggingFaceConfig
from abstractllm.providers.ray import RayProvider
from abstractllm.providers.ray.app import build
from abstractllm.providers.ray.cluster import import_serve
from abstractllm.providers.ray.config import keys_of, served_values
from abstractllm.providers.ray.deployment import Definition, _actor_options
from abstractllm.registry import LLMRegistry
from abstractllm_server.settings import load_settings
from abstractllm_server.settings.faults import ConfigurationFaultsError

FOLDER = Path(__file__).parents[2] / "deploy/ray_serve"


def definition(**line: Any) -> Definition:
    """The deployment of a line of the configuration file."""
    config = RayProvider(line).config
    return Definition("local", keys_of(config), served_values(config))


def test_an_llm_gets_replicas_by_its_provider_alone() -> None:
    line = {"model": "demo", "temperature": 0.5, "keep_alive": "10m", "load_in_8bit": True}
    plain, replicated = create_llm("huggingface", **line), create_llm("ray", **line, replicas=3)
    values = served_values(replicated.config)
    assert HuggingFaceConfig.parse(values) == plain.config
    assert keys_of(replicated.config).replicas == 3
    assert replicated.get_config()["temperature"] == 0.5


def test_a_key_of_the_environment_goes_to_the_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-server")
    llm = create_llm("ray", serves="openai", model="m")
    assert served_values(llm.config)["api_key"] == "sk-of-the-server"
    assert "sk-of-the-server" not in repr(llm.get_config())


@pytest.mark.parametrize(
    ("line", "field", "words"),
    [
        ({"replicas": 0}, "replicas", "at least 1"),
        ({"replicas": 2, "autoscaling": {"max_replicas": 3}}, None, "exclude each other"),
        ({"autoscaling": {"min_replicas": 3, "max_replicas": 2}}, "autoscaling", "at least min_replicas"),
        ({"autoscaling": {"min_replicas": 2}}, "autoscaling.max_replicas", "max_replicas"),
        ({"num_gpus": 1.5}, "num_gpus", "a part of one GPU"),
        ({"serves": "nobody"}, "provider", "unknown provider"),
        ({"serves": "ray"}, "serves", "cannot be a deployment"),
        ({"serves": "fallback"}, "serves", "in front of them"),
        ({"serves": 7}, "serves", "a provider's name"),
        ({"ray_address": "ray://head:10001"}, "ray_address", "node of the cluster"),
        ({"application": "a b"}, "application", "pattern"),
        ({"temperature": 7}, "parameters.temperature", "at most 2"),
        ({"unheard_of": 1}, "unheard_of", "known are"),
    ],
)
def test_what_is_wrong_is_named(line: dict[str, Any], field: str | None, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        RayProvider(line)
    if field is not None:
        assert caught.value.field == field


def test_a_file_s_fault_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "llms.yaml"
    file.write_text("llms:\n  local:\n    provider: ray\n    num_gpus: 1.5\n    temperature: 9\n")
    with pytest.raises(ConfigurationFaultsError) as caught:
        load_settings(file, {})
    assert "llms.yaml:4" in str(caught.value)
    assert "llms.yaml:5" in str(caught.value)


def test_fallbacks_stand_in_front_of_replicas() -> None:
    registry = LLMRegistry.from_config(
        {"a": {"provider": "ray", "serves": "scripted"}, "best": {"provider": "fallback", "llms": ["a"]}}
    )
    assert registry["best"].members[0].provider == "ray"


def test_gpus_and_other_resources_are_asked_of_ray() -> None:
    keys = definition(num_gpus=0.25, num_cpus=2, memory="2GiB", resources={"fast": 1}, accelerator_type="H100").keys
    assert _actor_options(keys) == {
        "num_gpus": 0.25,
        "num_cpus": 2,
        "memory": 2 << 30,
        "resources": {"fast": 1},
        "accelerator_type": "H100",
    }
    assert _actor_options(definition(num_gpus=2).keys)["num_gpus"] == 2


def test_replicas_are_replaced_for_their_own_keys_alone() -> None:
    usual = definition(replicas=2)
    assert usual.digest == definition(replicas=2, temperature=0.5, deploy=False).digest
    assert usual.digest != definition(replicas=3).digest
    assert usual.digest != definition(replicas=2, num_gpus=1).digest
    assert usual.digest != definition(replicas=2, max_waiting=1).digest  # Ray Serve counts those that wait
    assert usual.application == "abstractllm-local"
    assert definition(application="mine").application == "mine"


def test_replica_keys_cannot_be_changed_while_they_run() -> None:
    with pytest.raises(ConfigurationError, match="configuration file") as caught:
        create_llm("ray", serves="scripted").set_config(replicas=3)
    assert caught.value.field == "replicas"


def test_before_it_is_deployed_a_change_is_this_process_s_alone() -> None:
    llm = create_llm("ray", serves="scripted", temperature=0.5)
    assert llm.set_config(temperature=0.25)["temperature"] == 0.25
    with pytest.raises(ConfigurationError):
        llm.set_config(temperature=9)
    assert llm.config.parameters.temperature == 0.25


@pytest.mark.parametrize("name", ["demo.yaml", "cluster.yaml"])
def test_the_configurations_are_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    settings = load_settings(FOLDER / name, {})
    LLMRegistry.from_config(settings.llms, settings.default)


def test_the_manifest_s_parts_are_right(tmp_path: Path) -> None:
    config_map, service = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text())
    spec = yaml.safe_load(service["spec"]["serveConfigV2"])
    _, serve = import_serve()
    schema = serve.schema.ServeDeploySchema.model_validate(spec)
    (application,) = schema.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert build(application.args) is not None
    made = definition(**{key: value for key, value in application.args.items() if key != "llm"})
    assert made.keys.autoscaling is not None
    file = tmp_path / "llms.yaml"
    file.write_text(config_map["data"]["llms.yaml"].replace("/etc/abstractllm/tokens/tokens", str(tmp_path / "tokens")))
    settings = load_settings(file, {})
    ((name, line),) = settings.llms.items()
    config = RayProvider({key: value for key, value in line.items() if key != "provider"}).config
    assert Definition(name, keys_of(config), {}).application == application.name
    containers = {
        container["name"]: container
        for container in service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"]
    }
    shared = {mount["name"] for mount in containers["ray-head"]["volumeMounts"]}
    assert shared <= {mount["name"] for mount in containers["abstractllm"]["volumeMounts"]}


def test_autoscaling_hears_of_the_number_of_requests_every_two_seconds() -> None:
    application = build({"llm": "elastic", "model": "demo", "autoscaling": {"max_replicas": 2}})
    scaling = application._bound_deployment._deployment_config.autoscaling_config
    assert (scaling.metrics_interval_s, scaling.look_back_period_s) == (2.0, 15.0)


def test_an_application_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="llm: must be"):
        build({"model": "demo"})


def test_ray_is_imported_by_nobody_who_does_not_use_it() -> None:
    code = (
        "import sys; from abstractllm import create_llm; create_llm('ray', model='demo');"
        "assert 'ray' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_ray_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')\n")
    code = (
        "from abstractllm import create_llm\n"
        "try: create_llm('ray', serves='scripted').generate('hi')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}
    )
    assert "ConfigurationError" in done.stdout
    assert "abstractllm-grpc[ray]" in done.stdout
