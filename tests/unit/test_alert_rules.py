"""The dashboard, the alert rules and their cases, as texts: each is whole, and each query names metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from abstractllm_server.telemetry.instruments import INSTRUMENTS, Kind
from tests.promql import parse
from tools.metrics_page import prometheus_label, prometheus_name

TARGET_LABELS = {"job", "instance"}
"""The labels that Prometheus adds to what it scrapes."""
_ENDINGS = ("_bucket", "_sum", "_count")


@pytest.fixture
def rules(repository: Path) -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((repository / "deploy/prometheus/alerts.yaml").read_text("utf-8"))["groups"]
    return group["rules"]


@pytest.fixture
def dashboard(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "deploy/grafana/abstractllm.json").read_text("utf-8"))


def known_labels() -> dict[str, set[str]]:
    """Returns the labels of each series that there can be, by the series' name."""
    series: dict[str, set[str]] = {"up": set()}
    for instrument in INSTRUMENTS.values():
        name, labels = prometheus_name(instrument), set(map(prometheus_label, instrument.attributes))
        if instrument.kind is Kind.HISTOGRAM:
            series |= {name + ending: labels | ({"le"} if ending == "_bucket" else set()) for ending in _ENDINGS}
        else:
            series[name] = labels
    return series


def dashboard_queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"].removeprefix("label_values(").rpartition(",")[0]


def check_names(text: str, series: dict[str, set[str]]) -> None:
    """Fails where a query names a metric or a label that there is not."""
    query = parse(text)
    assert query.selectors, text
    for name, labels in query.selectors:
        assert name in series, f"there is no metric {name}: {text}"
        assert labels <= series[name] | TARGET_LABELS, f"{name} has no label {labels - series[name] - TARGET_LABELS}"
    possible = set().union(*(series[name] for name, _ in query.selectors)) | TARGET_LABELS
    assert query.labels <= possible, f"there is no label {query.labels - possible}: {text}"


def test_queries_are_taken_apart() -> None:
    query = parse('sum by (le, a) (rate(m_bucket{x=~"$job|(y)", z!=""}[$__rate_interval])) / on (b) n > 0.5 or up == 1')
    assert query.selectors == [("m_bucket", {"x", "z"}), ("n", set()), ("up", set())]
    assert query.labels == {"le", "a", "b"}
    with pytest.raises(ValueError, match="cannot read"):
        parse("m{a='b'}")


@pytest.mark.parametrize(
    "text", ["made_up_metric", 'abstractllm_llm_ready{made_up="x"}', "sum by (made_up) (abstractllm_llm_ready)"]
)
def test_a_name_that_there_is_not_is_noticed(text: str) -> None:
    with pytest.raises(AssertionError, match=r"there is no|has no label"):
        check_names(text, known_labels())


def test_every_query_names_metrics_and_labels_that_there_are(
    rules: list[dict[str, Any]], dashboard: dict[str, Any]
) -> None:
    series = known_labels()
    for rule in rules:
        check_names(rule["expr"], series)
    for query in dashboard_queries(dashboard):
        check_names(query, series)


def test_every_metric_is_on_the_dashboard(dashboard: dict[str, Any]) -> None:
    names = {name for query in dashboard_queries(dashboard) for name, _ in parse(query).selectors}
    for instrument in INSTRUMENTS.values():
        name = prometheus_name(instrument)
        assert {name, *(name + ending for ending in _ENDINGS)} & names, instrument.name


def test_panels_have_titles_and_queries_of_their_own(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in panels]
    assert len(set(places)) == len(places)
    for panel in panels:
        assert panel["title"]
        references = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(references)) == len(references)


def test_every_alert_has_a_case_a_severity_and_words(rules: list[dict[str, Any]], repository: Path) -> None:
    cases = yaml.safe_load((repository / "deploy/prometheus/alerts_test.yaml").read_text("utf-8"))["tests"]
    fired = {
        label
        for case in cases
        for test in case["promql_expr_test"]
        for sample in test["exp_samples"]
        for label in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    names = [rule["alert"] for rule in rules]
    assert len(names) == len(set(names)) and fired == set(names)
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description"} <= set(rule["annotations"])


def test_every_alert_is_in_the_runbook(rules: list[dict[str, Any]], repository: Path) -> None:
    text = (repository / "docs/runbook.md").read_text("utf-8")
    for rule in rules:
        assert rule["alert"] in text


def test_the_job_that_alerts_look_for_is_the_one_that_the_page_scrapes(
    repository: Path, rules: list[dict[str, Any]]
) -> None:
    page = (repository / "docs/metrics.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n# prometheus\.yml\n(.*?)```", page, re.DOTALL)
    (job,) = yaml.safe_load(block)["scrape_configs"]
    names = {name for rule in rules for name in re.findall(r'job="([^"]*)"', rule["expr"])}
    assert names == {job["job_name"]}
