"""Access control as the configuration describes it: which credentials a server asks for, kept up to date."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import grpc

from abstractllm.errors import AuthenticationError
from abstractllm_server.security.certificate_names import CertificateNames, check_validity
from abstractllm_server.security.credentials import TokenFile
from abstractllm_server.security.file_watcher import FileWatcher, Reloadable
from abstractllm_server.security.identity import Identity, MethodForbiddenError
from abstractllm_server.security.roles import LOAD_STREAM, OPEN_TO_ALL, OPEN_TO_KNOWN_CALLERS
from abstractllm_server.security.tls import Certificates
from abstractllm_server.security.warnings import access_warnings
from abstractllm_server.settings import Role, ServerSettings
from abstractllm_server.telemetry.measurements import Measurement

__all__ = ["AccessControl"]

logger = logging.getLogger("abstractllm.server")

_LONGEST_TOKEN = 4096


class AccessControl:
    """The credentials that a server asks its callers for, and its own certificate.

    Args:
        settings: The checked configuration.
        inference_paths: The methods (`/SERVICE/METHOD`) and whole services (`/SERVICE/`) that callers with the role
            `inference` may call. All others, unknown ones too, need the role `admin`.

    Raises:
        ConfigurationError: If a file cannot be used.

    Attributes:
        watcher: Looks after the files.
        reads_certificates: True if callers may be known by their certificates; else `authenticate` does not read the
            properties of the connection.
    """

    def __init__(self, settings: ServerSettings, inference_paths: Collection[str]) -> None:
        tls = settings.tls
        files = (settings.tokens, *(tls.files if tls else ()))
        self.watcher = FileWatcher(path for path in files if path is not None)
        self.tokens = TokenFile(settings.tokens) if settings.tokens else None
        self._certificates = Certificates(*tls.files) if tls else None
        self._names = CertificateNames(tls.subjects if tls else {})
        self._inference_paths = frozenset(inference_paths)
        self._open_paths = OPEN_TO_ALL | (LOAD_STREAM if settings.load_reports.without_credentials else frozenset())
        self.reads_certificates = tls is not None and tls.client_ca is not None
        self._warn(settings)

    @property
    def server_credentials(self) -> Callable[[], grpc.ServerCredentials] | None:
        """Makes the credentials that gRPC listens with at one address; None for plain text."""
        return self._certificates.credentials if self._certificates else None

    def on_roots_removed(self, function: Callable[[], None]) -> None:
        """Has a function called when a root of callers' certificates is trusted no more.

        A connection that is open then may have come with a certificate from that root. It is called in the thread that
        reads the files.
        """
        if self._certificates is not None:
            self._certificates.on_roots_removed = function

    def measurements(self) -> Iterable[Measurement]:
        """Returns the times at which certificates expire, and the outcomes of reading changed files."""
        yield from self.watcher.measurements()
        if self._certificates is not None:
            yield from self._certificates.measurements()

    def prepare(self, settings: ServerSettings) -> Callable[[], None]:
        """Prepares a change of the keys `tokens` and `tls` while the server runs.

        gRPC fixes when it starts to listen whether there is TLS and whether callers need certificates: a change of that
        takes a restart.

        Args:
            settings: The settings that are to count, in which that is as it was.

        Returns:
            A function that puts the change in force.

        Raises:
            ConfigurationError: If a file cannot be used.
        """
        tls = settings.tls
        path = settings.tokens
        new_tokens = TokenFile(path) if path is not None and not _reads(self.tokens, [path]) else None
        put_in_force: Callable[[], None] | None = None
        if self._certificates is not None and tls is not None and not _reads(self._certificates, tls.files):
            put_in_force = self._certificates.prepare(*tls.files)

        def change() -> None:
            # Files that stay are kept up to date by the watcher, perhaps since this was prepared.
            self.tokens = None if path is None else new_tokens or self.tokens
            self._names = CertificateNames(tls.subjects if tls else {})
            if put_in_force is not None:
                put_in_force()
            self._warn(settings)

        return change

    def _warn(self, settings: ServerSettings) -> None:
        for warning in access_warnings(settings):
            logger.warning("SECURITY: %s", warning)

    async def watch_files(self) -> None:
        """Takes changed files over, until it is cancelled."""
        await self.watcher.run(self._sources)

    def _sources(self) -> dict[str, Reloadable]:
        """Returns what is read from files, by its name in metrics."""
        sources = {"tokens": self.tokens, "certificate": self._certificates}
        return {name: source for name, source in sources.items() if source is not None}

    def authenticate(
        self,
        method: str,
        metadata: Iterable[tuple[str, str | bytes]],
        auth_context: Mapping[str, Iterable[bytes]],
        peer: str,
    ) -> Identity:
        """Returns the caller of a call, who may make it.

        All of it is known when the headers of a call have arrived, before its message has.

        Args:
            method: The path of the method, `/SERVICE/METHOD`.
            metadata: The call's metadata.
            auth_context: gRPC's properties of the connection (`context.auth_context()`).
            peer: The address of the connection's other end (`context.peer()`).

        Raises:
            AuthenticationError: If the caller is not known.
            PermissionDeniedError: If they may not call the method.
        """
        if method in self._open_paths or not (self.tokens or self._names):
            return Identity(peer, None)
        if self.reads_certificates:
            check_validity(auth_context)
        identity = self._find_token(metadata)
        if identity is None:
            if not self._names:
                raise AuthenticationError("authorization: a bearer token is required", field="authorization")
            identity = self._names.identify(auth_context)
        if identity.role is not Role.ADMIN and not self._is_open(method):
            raise MethodForbiddenError(f"{method.rpartition('/')[2][:100]} needs the role {Role.ADMIN}", identity)
        return identity

    def _find_token(self, metadata: Iterable[tuple[str, str | bytes]]) -> Identity | None:
        """Returns the caller that a call's token belongs to; None if it brings no token, or none is read."""
        values = [value for key, value in metadata if key == "authorization"]
        if not values or self.tokens is None:
            return None
        value = values[0]
        kind, _, token = (value.decode("latin-1") if isinstance(value, bytes) else value).partition(" ")
        token = token.strip()
        if len(values) > 1 or kind.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
            raise AuthenticationError("authorization: must be one bearer token", field="authorization")
        identity = self.tokens.find(token)
        if identity is None:
            raise AuthenticationError("authorization: the token is not known", field="authorization")
        return identity

    def _is_open(self, method: str) -> bool:
        """Returns whether the role `inference` is enough for a method."""
        service = method.rpartition("/")[0] + "/"
        return service in OPEN_TO_KNOWN_CALLERS or not self._inference_paths.isdisjoint((method, service))


def _reads(source: Reloadable | None, files: Iterable[Path | None]) -> bool:
    """Returns whether a source reads these files, in this order."""
    return source is not None and list(source.paths) == [path for path in files if path is not None]
