"""The documents that Helm, or a file to copy, has, and the pods that are in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

ROOT = Path(__file__).resolve().parents[3]


def documents(text: str) -> list[Document]:
    """The documents of a text of YAML."""
    return [document for document in yaml.safe_load_all(text) if document]


def only(texts: list[Document], kind: str, ending: str = "") -> Document:
    """The one document of a kind whose name ends so."""
    (document,) = (text for text in texts if text["kind"] == kind and text["metadata"]["name"].endswith(ending))
    return document


def kinds(texts: list[Document]) -> list[str]:
    """The kinds of the documents, each as often as it is there."""
    return sorted(text["kind"] for text in texts)


def pod_templates(texts: list[Document]) -> Iterator[tuple[Document, Document]]:
    """Yields each document that makes pods, and the specification of these."""
    for text in texts:
        template = text.get("spec", {}).get("template") if isinstance(text.get("spec"), dict) else None
        if template is not None and "spec" in template:
            yield text, template["spec"]


def server_container(pod: Document) -> Document:
    """The container of a pod that runs the server."""
    everyone = [*pod.get("initContainers", ()), *pod["containers"]]
    (container,) = (one for one in everyone if one.get("args", [""])[0] == "serve")
    return container


def configurations(texts: list[Document]) -> Iterator[str]:
    """Yields the text of each configuration of a server."""
    for text in texts:
        if text["kind"] == "ConfigMap" and "llms.yaml" in text["data"]:
            yield text["data"]["llms.yaml"]
