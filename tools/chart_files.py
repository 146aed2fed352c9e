"""The parts of the Helm chart that follow from elsewhere: alerts and dashboard, the server's keys, the table of values.

Helm packs what lies in the chart's folder alone, so it has copies. The keys of the server that `server` of the values
may hold are those of the configuration file, less those that the chart itself sets. The README's table of values is
made of the schema's descriptions and the defaults. The schema wants what has a default that templates count on, so that
`null`, with which Helm takes a default away, is refused by name.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.marked_parts import with_part

CHART = Path("deploy/helm/abstractllm")
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
COPIES = {
    CHART / "files/alerts.yaml": Path("deploy/prometheus/alerts.yaml"),
    CHART / "files/dashboard.json": Path("deploy/grafana/abstractllm.json"),
}
MARKS = ("<!-- The table of values: written by `make generate`. -->", "<!-- End of the values. -->")
SET_BY_CHART = frozenset(
    ("default", "grace", "health", "insecure", "listen", "llms", "monitoring", "preload", "tls", "tokens")
)
"""The keys of the server that values of the chart's own stand for."""


def _server_keys() -> dict[str, Any]:
    """Returns the schema of `server`: names alone, since the server itself checks the values."""
    from abstractllm_server.settings import ServerSettings

    keys = sorted(ServerSettings.model_fields.keys() - SET_BY_CHART)
    link = "../../../docs/configuration.md#the-server"
    return {key: {"description": f"[`{key}`]({link}) of the configuration file."} for key in keys}


def _required(schema: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Names in the schema of a table, and of those within it, what must not be taken away by `null`.

    A list, a table without keys of the chart's own and an empty text can be: then there is none.
    """
    required = []
    for name, default in values.items():
        part = schema["properties"][name]
        if part.get("properties"):
            _required(part, default)
        if part.get("properties") or not (default is None or default == "" or isinstance(default, (dict, list))):
            required.append(name)
    if required:
        schema["required"] = required


def rows(schema: Mapping[str, Any], values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yields each value of the chart.

    Args:
        schema: The schema of a table of values.
        values: Their defaults.
        path: The name of that table, with a dot behind it.

    Yields:
        The value's name, its default and its description.
    """
    for name, part in schema["properties"].items():
        if name in ("global", "enabled") and not path:
            continue
        if part.get("properties") and name != "server":
            yield from rows(part, values[name], f"{path}{name}.")
        else:
            yield f"{path}{name}", values[name], part["description"]


def _table(schema: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for name, default, description in rows(schema, values):
        shown = "" if default == "" else f"`{json.dumps(default)}`" if not isinstance(default, str) else f"`{default}`"
        lines.append(f"| `{name}` | {shown} | {description} |")
    return "\n".join(lines)


def emit(root: Path) -> dict[Path, str]:
    """Writes these parts of the chart.

    Args:
        root: The repository.

    Returns:
        The text of each file by its path.
    """
    schema = json.loads((root / SCHEMA).read_text("utf-8"))
    schema["properties"]["server"]["properties"] = _server_keys()
    values = yaml.safe_load((root / CHART / "values.yaml").read_text("utf-8"))
    _required(schema, values)
    texts = {copy: (root / original).read_text("utf-8") for copy, original in COPIES.items()}
    texts[SCHEMA] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    texts[README] = with_part((root / README).read_text("utf-8"), MARKS, _table(schema, values))
    return texts
