"""The dangers of a configuration: callers whom nobody asks for credentials, and secrets that travel in the clear."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from abstractllm_server.security.file_modes import is_writable_by_others
from abstractllm_server.settings import ServerSettings, is_local

__all__ = ["access_warnings", "warn_of_file"]

logger = logging.getLogger("abstractllm.server")


def access_warnings(settings: ServerSettings) -> Iterator[str]:
    """Yields the dangers of a configuration, in words for its operator."""
    listen = settings.listen
    if is_local(listen):
        return
    if not settings.has_credentials:
        yield (
            f"{listen} can be reached from other machines and nobody is asked for credentials (insecure: true): "
            "everybody who reaches it may do everything, also change configurations and delete models; set tokens or "
            "tls.client_ca"
        )
    if settings.tls is None:
        secrets = "tokens, prompts and answers" if settings.tokens else "prompts and answers"
        yield (
            f"{listen} can be reached from other machines without TLS: {secrets} travel in the clear, unless something "
            "in front of it (a proxy, a mesh) encrypts them; set tls"
        )


def warn_of_file(path: Path) -> None:
    """Warns of a configuration file that other users can write."""
    if is_writable_by_others(path):
        logger.warning(
            "SECURITY: %s can be written by other users than its owner: each of them can change what this server does, "
            "and where it sends its keys",
            path,
        )
