"""Prometheus itself reads a running server: `python -m tests.reliability.prometheus`.

Pass mark: `promtool` accepts the alert rules and their cases; Prometheus scrapes the server, loads the rules, and
answers every query of the dashboard and of the rules without an error; every query whose metrics have values now brings
some; no alert fires but for what this server lacks.
Needs `prometheus` and `promtool`, which Debian's package `prometheus` has.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.promql import parse
from tests.reliability.calls import Stub, request
from tests.reliability.figures import Figures
from tests.reliability.server_process import ROOT, echo, free_port, serving

_PATIENCE = 60.0
_RULES = ROOT / "deploy/prometheus"
_VARIABLES = re.compile(r"\$\{?(\w+)\}?")
_ABSENT = ("gen_ai_client", "certificate", "reasoning", "files_reloads")
"""Words in the names of metrics of what the measured server has not: hosted LLMs, TLS, models that reason, tokens."""
_EVENTS = ("error_type", "failure", "restarts", "closed", "dropped", "tasks", "reloads", "evictions", *_ABSENT)
"""Words in queries about what has not happened to the server that is measured."""


def main() -> int:
    """Measures, prints each figure, and returns 1 if one is beyond its bound."""
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            print(f"{program} is not installed: dashboard and alerts are not tried (Debian: apt install prometheus)")
            return 1
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder)))
    for figure in figures.figures:
        print(f"{'    ' if figure.passed else 'FAIL'} {figure}")
    return 0 if figures.passed else 1


async def measure(folder: Path) -> Figures:
    """Lets Prometheus scrape a server for half a minute, and asks it everything that the dashboard asks."""
    figures = Figures()
    for arguments in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        result = await asyncio.to_thread(_promtool, arguments)
        figures.holds(f"promtool {' '.join(arguments)}", result.returncode == 0, result.stdout[-300:].strip())
    monitoring = f"127.0.0.1:{free_port()}"
    llms = {**echo(), "local": {"provider": "huggingface", "model": "demo"}}
    async with serving(folder / "server", llms, monitoring=monitoring, preload=["local"]) as server:
        await server.becomes_healthy("llm/local", 300)
        with prometheus(folder / "prometheus", monitoring) as address:
            async with server.channel() as channel:
                end = time.monotonic() + 30
                while time.monotonic() < end:
                    for llm in ("echo", "local"):
                        await Stub(channel).Generate(request(llm=llm), timeout=_PATIENCE)
                    await asyncio.sleep(0.2)
            await asyncio.to_thread(_ask, figures, address)
    return figures


def _promtool(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=_RULES, capture_output=True, text=True, check=False)


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Runs Prometheus, which scrapes one target each second; gives its address."""
    folder.mkdir()
    address = f"127.0.0.1:{free_port()}"
    scrape = {"job_name": "abstractllm", "static_configs": [{"targets": [target]}]}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(_RULES / "alerts.yaml")],
        "scrape_configs": [scrape],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _PATIENCE
        while "is ready to receive" not in (folder / "log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _ask(figures: Figures, address: str) -> None:
    targets = _get(address, "targets")["activeTargets"]
    figures.equal("targets that are up", [target["health"] for target in targets], ["up"])
    rules = [rule for group in _get(address, "rules")["groups"] for rule in group["rules"]]
    faulty = [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] == "err"]
    figures.equal("rules with an error", faulty, [])
    figures.equal("alerts that fire", [rule["name"] for rule in rules if rule.get("state") == "firing"], [])
    queries = [*_dashboard_queries(), *(rule["query"] for rule in rules)]
    empty = []
    for text in queries:
        result = _get(address, "query", query=_VARIABLES.sub(_value, text))["result"]
        is_event = any(word in text for word in _EVENTS) or re.search(r"[<>=] *-?[0-9.]", text)
        if not result and not is_event:
            empty.append(text)
    figures.inform("queries that were asked", float(len(queries)))
    figures.equal("queries that bring nothing", empty, [])
    names = {name for text in queries for name, _ in parse(text).selectors}
    lacking = sorted(name for name in names if not _get(address, "series", **{"match[]": name}))
    expected = {name for name in names if any(word in name for word in _ABSENT)}
    figures.equal("metrics that Prometheus lacks", sorted(set(lacking) - expected), [])


def _dashboard_queries() -> Iterator[str]:
    dashboard = json.loads((ROOT / "deploy/grafana/abstractllm.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def _value(variable: re.Match[str]) -> str:
    """Returns the value that Grafana gives a variable of the dashboard."""
    return "10s" if variable[1] == "__rate_interval" else ".*"


def _get(address: str, path: str, **parameters: str) -> Any:
    url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
        body = json.load(answer)
    assert body["status"] == "success", f"{path} {parameters}: {body}"
    return body["data"]


if __name__ == "__main__":
    sys.exit(main())
