"""Tokens and certificates as the configuration names them, taken over again when their files change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

import grpc

from abstractllm.errors import ConfigurationError
from abstractllm_server.security.auth_interceptor import AuthInterceptor, TokenFile
from abstractllm_server.security.tls import Certificates
from abstractllm_server.settings import ServerSettings

__all__ = ["Security"]

logger = logging.getLogger("abstractllm.server")

_INTERVAL = 1.0
"""Seconds between two looks at the files."""


class Security:
    """What a server asks of its callers.

    Args:
        settings: The checked configuration.

    Raises:
        ConfigurationError: If a file cannot be used.

    Attributes:
        gate: Looks at each call; None if nobody is asked for credentials.
        failed_reloads: Changes of the files that could not be taken over.
    """

    def __init__(self, settings: ServerSettings) -> None:
        tls = settings.tls
        files = [settings.tokens, *((tls.certificate, tls.key, tls.client_ca) if tls else ())]
        # Before they are read: what changes meanwhile is read again.
        self._seen = _state(files)
        self._tokens = TokenFile(settings.tokens) if settings.tokens else None
        self._certificates = Certificates(tls.certificate, tls.key, tls.client_ca) if tls else None
        subjects = tls.subjects if tls else {}
        self.gate = AuthInterceptor(self._tokens, subjects) if self._tokens or subjects else None
        self.failed_reloads = 0

    @property
    def credentials(self) -> grpc.ServerCredentials | None:
        """What gRPC listens with; None for plain text."""
        return self._certificates.credentials() if self._certificates else None

    async def watch(self) -> None:
        """Takes changed files over, until it is cancelled. What cannot be used is logged, and changes nothing."""
        while self._seen:
            await asyncio.sleep(_INTERVAL)
            now = await asyncio.to_thread(_state, list(self._seen))
            changed = {path for path in now if now[path] != self._seen[path]}
            self._seen = now
            for source in (self._tokens, self._certificates):
                if source is None or changed.isdisjoint(source.paths):
                    continue
                try:
                    await asyncio.to_thread(source.reload)
                except ConfigurationError as error:
                    self.failed_reloads += 1
                    logger.error("the changed file is not used, the earlier one stays in force: %s", error.message)
                else:
                    logger.info("took over the changed %s", ", ".join(map(str, sorted(changed))))


def _state(paths: Iterable[Path | None]) -> dict[Path, tuple[int, int, int]]:
    """Something that differs once a file was written or replaced; secrets of Kubernetes are replaced links."""
    found = {}
    for path in paths:
        if path is None:
            continue
        try:
            status = path.stat()
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            found[path] = (0, 0, 0)
    return found
