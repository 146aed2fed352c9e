"""The example of an inference gateway: valid by its projects' schemas, and made of metrics that a server has."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import config_pb2, generation_pb2, models_pb2
from tests.clients.toolchains import require
from tests.deploy.helm import custom_resources
from tests.promql import parse
from tests.server.support import HANG, Serving, request, serving
from tests.waiting import until

KINDS = {"pool.yaml": ["InferencePool", "Gateway", "HTTPRoute"], "route-without-picker.yaml": ["GRPCRoute"]}
SAMPLE = re.compile(r"^(\w+)(\{[^}]*\})? ([0-9.e+-]+)$", re.MULTILINE)


@pytest.fixture
def folder(repository: Path) -> Path:
    return repository / "deploy/kubernetes/inference-gateway"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_valid(folder: Path, name: str) -> None:
    require("go")
    contents = documents(folder / name)
    assert [document["kind"] for document in contents] == KINDS[name]
    for document in contents:
        custom_resources.check(document)


def test_the_pool_is_that_of_the_service(folder: Path, repository: Path) -> None:
    pool, _, route = documents(folder / "pool.yaml")
    service = {one["kind"]: one for one in documents(repository / "deploy/kubernetes/shared-service.yaml")}
    labels = service["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert pool["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (container,) = service["Deployment"]["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert pool["spec"]["targetPorts"] == [{"number": ports["grpc"]}]
    (rule,) = route["spec"]["rules"]
    assert [backend["name"] for backend in rule["backendRefs"]] == [pool["metadata"]["name"]]
    (configuration,) = documents(folder / "picker.yaml")
    picker = yaml.safe_load(configuration["data"]["config.yaml"])
    plugins = {plugin["name"]: plugin for plugin in picker["plugins"]}
    assert plugins["metrics"]["parameters"]["port"] == ports["monitoring"]
    names = set(plugins)
    used = [plugin["pluginRef"] for profile in picker["schedulingProfiles"] for plugin in profile["plugins"]]
    assert {*used, picker["requestHandler"]["parsers"][0]["pluginRef"], "metrics", "load"} == names


def test_routes_name_methods_that_there_are(folder: Path) -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in (generation_pb2, models_pb2, config_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    _, _, route = documents(folder / "pool.yaml")
    paths = [match["path"]["value"] for match in route["spec"]["rules"][0]["matches"]]
    assert all(any(method.startswith(path) for method in methods) for path in paths)
    (grpc_route,) = documents(folder / "route-without-picker.yaml")
    matches = [match["method"] for match in grpc_route["spec"]["rules"][0]["matches"]]
    assert [f"/{match['service']}/{match.get('method', '')}" for match in matches] == paths


def read(address: str, selector: str) -> float:
    """The value that a picker reads: of the only series that a selector selects."""
    text = urllib.request.urlopen(f"http://{address}/metrics", timeout=HANG).read().decode()
    ((name, labels),) = parse(selector).selectors
    wanted = dict(re.findall(r'(\w+)="([^"]*)"', selector))
    assert set(wanted) == set(labels)
    values = [
        float(value)
        for sample, labelled, value in SAMPLE.findall(text)
        if sample == name and wanted.items() <= dict(re.findall(r'(\w+)="([^"]*)"', labelled)).items()
    ]
    (value,) = values
    return value


async def test_the_metrics_are_there_and_tell_of_all_llms(folder: Path) -> None:
    (configuration,) = documents(folder / "picker.yaml")
    picker = yaml.safe_load(configuration["data"]["config.yaml"])
    plugins = {plugin["name"]: plugin for plugin in picker["plugins"]}
    (engine,) = plugins["load"]["parameters"]["engineConfigs"]
    specs = [engine[f"{key}Spec"] for key in ("queuedRequests", "runningRequests", "kvUsage")]
    kept = {name for spec in specs for name, _ in parse(spec).selectors}
    assert set(plugins["metrics"]["parameters"]["families"]) == kept
    llms = {name: ScriptedProvider({"delay": 1000}) for name in ("a", "b")}
    async with serving(llms, monitoring="127.0.0.1:0") as served:
        await three_numbers(served, specs, [0, 0, 0])
        calls = [
            served.generation.Generate(request(llm=name), timeout=HANG)
            for name, count in (("a", 2), ("b", 1))
            for _ in range(count)
        ]
        await until(lambda: llms["a"].running == 2 and llms["b"].running == 1)
        await three_numbers(served, specs, [0, 3, 0])
        for call in calls:
            call.cancel()
        await until(lambda: served.server.running == 0)


async def three_numbers(served: Serving, specs: list[str], wanted: list[float]) -> None:
    """Waits until a picker reads some numbers: what it is told may be half a second old."""
    address = served.server.monitor.http_address
    async with asyncio.timeout(HANG):
        while [await asyncio.to_thread(read, address, spec) for spec in specs] != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
