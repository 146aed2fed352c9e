"""The configuration of an Ollama LLM, and the address of its server."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from abstractllm.config import Seconds
from abstractllm.providers.hosted import HostedConfig

__all__ = ["BASE_URL", "DEFAULT_MODEL", "OllamaConfig", "host_url"]

BASE_URL = "http://127.0.0.1:11434"
DEFAULT_MODEL = "llama3.2"
"""As of 2026-11-20: small, calls tools, and in Ollama's library (https://ollama.com/library/llama3.2). The SDK lists no
names. As any other model it has to be pulled."""
_PORT = 11434
_UNSPECIFIED = ("", "0.0.0.0", "::")


class OllamaConfig(HostedConfig):
    """The configuration of an Ollama LLM.

    `base_url` is taken from `OLLAMA_HOST`, else from `OLLAMA_BASE_URL`, else it is this machine's port 11434.
    `api_key`, which few servers want, is taken from `OLLAMA_API_KEY`, unless `base_url` is set.
    """

    model: Annotated[str, Field(min_length=1, max_length=256)] = DEFAULT_MODEL
    keep_alive: Seconds | None = None
    """Seconds that the server keeps the model in memory after an answer; if absent the server's own setting."""


def host_url(host: str) -> str:
    """Returns the address for a value of `OLLAMA_HOST`, which may lack its scheme, its host or its port.

    An address to listen on (`0.0.0.0`) is reached at this machine's. A value that cannot be read is returned unchanged;
    the check of the configuration refuses it.
    """
    host = host.strip()
    scheme, mark, rest = host.rpartition("://")
    try:
        parts = urlsplit(f"{scheme or 'http'}://{rest}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return host
    if parts.username or parts.password or parts.query or parts.fragment:
        return host
    name = "127.0.0.1" if name in _UNSPECIFIED else name
    name = f"[{name}]" if ":" in name else name
    port = port if mark or port else _PORT
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
