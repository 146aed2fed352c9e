"""The schemas of kinds that are not Kubernetes' own, as their projects publish them for Go.

They come from the Go module proxy, with checksums, into Go's own cache.
"""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

_MONITORING = (
    "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
)
_CERTIFICATES = ("github.com/cert-manager/cert-manager@v1.21.2", "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=")
_GATEWAY = ("sigs.k8s.io/gateway-api@v1.6.3", "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=")
_INFERENCE = ("sigs.k8s.io/gateway-api-inference-extension@v1.6.0", "h1:cjtwMJYcTnLXBYE5ffR1/hHhn7U1aIFfe2RITYmOXVA=")
_SOURCES = {
    **{
        kind: (_GATEWAY, f"config/crd/standard/gateway.networking.k8s.io_{kind.lower()}s.yaml")
        for kind in ("Gateway", "HTTPRoute", "GRPCRoute")
    },
    "InferencePool": (_INFERENCE, "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml"),
    "ServiceMonitor": (
        _MONITORING,
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "PodMonitor": (_MONITORING, "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"),
    "PrometheusRule": (
        _MONITORING,
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "Certificate": (
        _CERTIFICATES,
        "deploy/charts/cert-manager/templates/crd-cert-manager.io_certificates.yaml",
    ),
}
GROUPS = ("monitoring.coreos.com/v1", "cert-manager.io/v1")


def check(document: dict[str, Any]) -> None:
    """Fails where a document is not as its kind's schema says, or has a key that the schema does not know."""
    jsonschema.Draft202012Validator(_schema(document["kind"], document["apiVersion"])).validate(document)


@cache
def _folder(module: str, checksum: str) -> Path:
    done = subprocess.run(
        ["go", "mod", "download", "-json", module], cwd="/", capture_output=True, text=True, timeout=110, check=True
    )
    answer = json.loads(done.stdout)
    assert answer["Sum"] == checksum
    return Path(answer["Dir"])


@cache
def _schema(kind: str, api_version: str) -> Any:
    module, path = _SOURCES[kind]
    text = (_folder(*module) / path).read_text("utf-8")
    # One of them is a template of Helm, whose actions stand on lines of their own or in labels.
    lines = (line for line in text.splitlines() if "{{" not in line)
    (version,) = (
        version
        for version in yaml.safe_load("\n".join(lines))["spec"]["versions"]
        if version["name"] == api_version.rpartition("/")[2]
    )
    schema = _strict(version["schema"]["openAPIV3Schema"])
    for name in ("apiVersion", "kind", "metadata"):
        schema["properties"].setdefault(name, {})
    return schema


def _strict(schema: Any) -> Any:
    """Returns a schema that takes no other keys than those that it names."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: _strict(part) for name, part in schema.items()}
    properties = parts.get("properties")
    is_open = parts.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in parts
    if isinstance(properties, dict) and parts.get("type") == "object" and not is_open:
        parts["additionalProperties"] = False
    return parts
