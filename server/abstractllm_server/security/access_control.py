"""Access control as the configuration describes it: which credentials a server asks for, kept up to date."""

from __future__ import annotations

from collections.abc import Collection

import grpc

from abstractllm_server.security.auth_interceptor import AuthInterceptor
from abstractllm_server.security.credentials import TokenFile
from abstractllm_server.security.file_watcher import FileWatcher
from abstractllm_server.security.tls import Certificates
from abstractllm_server.settings import ServerSettings

__all__ = ["AccessControl"]


class AccessControl:
    """The credentials that a server asks its callers for, and its own certificate.

    Args:
        settings: The checked configuration.
        inference_paths: The methods and whole services that callers with the role `inference` may call.

    Raises:
        ConfigurationError: If a file cannot be used.

    Attributes:
        interceptor: Checks each call; None if nobody is asked for credentials.
        watcher: Looks after the files.
    """

    def __init__(self, settings: ServerSettings, inference_paths: Collection[str]) -> None:
        tls = settings.tls
        files = (settings.tokens, *((tls.certificate, tls.key, tls.client_ca) if tls else ()))
        self.watcher = FileWatcher(path for path in files if path is not None)
        self.tokens = TokenFile(settings.tokens) if settings.tokens else None
        self._certificates = Certificates(tls.certificate, tls.key, tls.client_ca) if tls else None
        subjects = tls.subjects if tls else {}
        self.interceptor = AuthInterceptor(self.tokens, subjects, inference_paths) if self.tokens or subjects else None

    @property
    def server_credentials(self) -> grpc.ServerCredentials | None:
        """The credentials that gRPC listens with; None for plain text."""
        return self._certificates.credentials() if self._certificates else None

    async def watch_files(self) -> None:
        """Takes changed files over, until it is cancelled."""
        await self.watcher.run([source for source in (self.tokens, self._certificates) if source is not None])
