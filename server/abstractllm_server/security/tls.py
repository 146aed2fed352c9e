"""The server's certificate, and the roots of its callers' certificates."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import grpc

from abstractllm.errors import ConfigurationError
from abstractllm_server.security.certificate_validity import certificates_of, expiry_of, validity_of
from abstractllm_server.security.file_modes import is_readable_by_all, is_writable_by_others
from abstractllm_server.settings.bounded_files import read_file
from abstractllm_server.telemetry.measurements import Measurement

__all__ = ["Certificates"]

logger = logging.getLogger("abstractllm.server")

_TRIAL_SECONDS = 5.0
"""Seconds that the server of a trial may take to end; it takes milliseconds."""


@dataclass(frozen=True, slots=True)
class _Files:
    """The content of the files, read together."""

    key: bytes
    certificate: bytes
    roots: bytes | None

    @property
    def time_fault(self) -> str:
        """The reason why callers refuse the server's own certificate at this time; empty if they do not."""
        chain = certificates_of(self.certificate)
        validity = validity_of(chain[0]) if chain else None
        if validity is None or validity[0] <= time.time() < validity[1]:
            return ""
        return "has expired" if validity[1] <= time.time() else "is not valid yet"


@dataclass(frozen=True, slots=True)
class _Paths:
    """The files."""

    certificate: Path
    key: Path
    client_ca: Path | None

    def all(self) -> tuple[Path, ...]:
        """Returns those that there are."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)

    def read(self) -> _Files:
        """Returns the content of the files.

        Raises:
            ConfigurationError: If it cannot be used.
        """
        files = self._read_bytes()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # An encrypted key would ask for its password.
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigurationError(
                f"tls: the certificate {self.certificate} and the key {self.key} cannot be used: {error}",
                field="tls.certificate",
            ) from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ssl.SSLError) as error:
                raise self._client_ca_error(error) from error
        if files != self._read_bytes():
            raise ConfigurationError(f"tls: {self.certificate} changes while it is read", field="tls.certificate")
        if not _is_taken_by_grpc(files, None):
            raise ConfigurationError(
                f"tls: the certificate {self.certificate} and the key {self.key} are of a kind unknown to gRPC; "
                "RSA, and the curves P-256 and P-384 by their names, are known to every client, too",
                field="tls.certificate",
            )
        if files.roots is not None and not _is_taken_by_grpc(files, files.roots):
            raise ConfigurationError(f"tls: {self.client_ca} holds no certificate", field="tls.client_ca")
        return files

    def _read_bytes(self) -> _Files:
        try:
            roots = read_file(self.client_ca) if self.client_ca else None
        except OSError as error:
            raise self._client_ca_error(error) from error
        try:
            return _Files(read_file(self.key), read_file(self.certificate), roots)
        except OSError as error:
            raise ConfigurationError(
                f"tls: the certificate {self.certificate} and the key {self.key} cannot be used: {error}",
                field="tls.certificate",
            ) from error

    def _client_ca_error(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(f"tls: {self.client_ca} cannot be used: {error}", field="tls.client_ca")

    def warn(self, files: _Files) -> None:
        """Warns of what is wrong with files that are used all the same."""
        if fault := files.time_fault:
            logger.warning("%s %s: callers will refuse it", self.certificate, fault)
        if is_readable_by_all(self.key):
            logger.warning("SECURITY: the key %s can be read by every user of this machine", self.key)
        for path in self.all():
            if is_writable_by_others(path):
                logger.warning("SECURITY: %s can be written by other users than its owner", path)


class Certificates:
    """The files of TLS, checked and read together.

    Args:
        certificate: PEM of the server's certificate and the chain above it.
        key: PEM of its key.
        client_ca: PEM of the roots that callers' certificates must come from; None if callers need no certificate.

    Raises:
        ConfigurationError: If a file cannot be read, or the certificate and the key do not belong together.

    Attributes:
        on_roots_removed: Called, in the thread that reads the files, when a root of callers' certificates is trusted no
            more: connections that are open may have come with a certificate from it.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self.on_roots_removed: Callable[[], None] = lambda: None
        self._needs_client_certificates = client_ca is not None
        self._changing = threading.Lock()
        self._paths = _Paths(certificate, key, client_ca)
        self._files = self._paths.read()
        self._paths.warn(self._files)
        self._current = _as_configuration(self._files)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return self._paths.all()

    def reload(self) -> None:
        """Reads the files again; after an error what was read before stays in force.

        Raises:
            ConfigurationError: If a file cannot be used, or a certificate that is valid would give way to one that has
                expired, or is not valid yet.
        """
        paths = self._paths
        change = self._prepare(paths)
        with self._changing:
            # Others may have been put in force while these were read.
            if self._paths is paths:
                change()

    def prepare(self, certificate: Path, key: Path, client_ca: Path | None) -> Callable[[], None]:
        """Prepares to take other files.

        Returns:
            A function that puts them in force.

        Raises:
            ConfigurationError: As `reload` does.
        """
        change = self._prepare(_Paths(certificate, key, client_ca))

        def put_in_force() -> None:
            with self._changing:
                change()

        return put_in_force

    def _prepare(self, paths: _Paths) -> Callable[[], None]:
        files = paths.read()
        if (fault := files.time_fault) and not self._files.time_fault:
            raise ConfigurationError(f"tls: {paths.certificate} {fault}", field="tls.certificate")
        paths.warn(files)
        current = _as_configuration(files)

        def change() -> None:
            before = self._files
            self._paths, self._files, self._current = paths, files, current
            if not set(certificates_of(before.roots or b"")) <= set(certificates_of(files.roots or b"")):
                self.on_roots_removed()

        return change

    def credentials(self) -> grpc.ServerCredentials:
        """Returns the credentials that gRPC listens with at one address; new connections get what was read last.

        At a second address they would have no certificate: each change is told once.
        """
        known = self._current

        def changed() -> grpc.ServerCertificateConfiguration | None:
            # grpc exchanges its certificates for those that it gets, without regard to the handshakes that use them:
            # one that got them for each connection was crashed by anybody who opened a few hundred
            # (https://github.com/grpc/grpc/issues/36693).
            nonlocal known
            if known is self._current:
                return None
            known = self._current
            return known

        return grpc.dynamic_ssl_server_credentials(
            known,
            changed,  # type: ignore[arg-type] # None says that nothing has changed
            require_client_authentication=self._needs_client_certificates,
        )

    def measurements(self) -> Iterator[Measurement]:
        """Returns the times at which the server's certificate, and the first of the roots, expire."""
        groups = {
            "server": certificates_of(self._files.certificate)[:1],
            "client_ca": certificates_of(self._files.roots or b""),
        }
        for name, certificates in groups.items():
            if times := [expiry for certificate in certificates if (expiry := expiry_of(certificate)) is not None]:
                yield Measurement("abstractllm.server.certificate.expiry", min(times), {"certificate": name})


def _as_configuration(files: _Files) -> grpc.ServerCertificateConfiguration:
    pair = (files.key, files.certificate)
    configuration = grpc.ssl_server_certificate_configuration([pair], root_certificates=files.roots)
    assert configuration is not None  # as grpc's types would have it
    return configuration


@lru_cache(maxsize=4)  # gRPC writes to standard error at each trial, and what is refused is tried again and again
def _is_taken_by_grpc(files: _Files, roots: bytes | None) -> bool:
    """Tries whether gRPC, whose library of TLS knows fewer kinds of keys than Python's, can serve with files.

    Of a server that runs it would be heard on standard error alone: it goes on with the earlier ones.
    """
    pair = (files.key, files.certificate)
    trial = grpc.server(futures.ThreadPoolExecutor(max_workers=1), maximum_concurrent_rpcs=0)
    try:
        trial.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair], roots, roots is not None))
    except RuntimeError:
        try:
            trial.add_insecure_port("127.0.0.1:0")
        except RuntimeError:  # for a reason of another kind, such as a want of descriptors
            return True
        return False
    finally:
        trial.start()  # it lets go of its port only once it has been started
        trial.stop(None).wait(_TRIAL_SECONDS)
    return True


def _no_password() -> str:
    raise ValueError("the key is encrypted")
