"""The server's certificate, and the roots of its callers' certificates."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from abstractllm.errors import ConfigurationError

__all__ = ["Certificates"]


class Certificates:
    """The files of TLS, checked and read together.

    Args:
        certificate: PEM of the server's certificate and the chain above it.
        key: PEM of its key.
        client_ca: PEM of the roots that callers' certificates must come from; None if callers need no certificate.

    Raises:
        ConfigurationError: If a file cannot be read, or the certificate and the key do not belong together.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._current = self._read()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(path for path in (self._certificate, self._key, self._client_ca) if path is not None)

    def reload(self) -> None:
        """Reads the files again; after an error what was read before stays in force.

        Raises:
            ConfigurationError: If a file cannot be used.
        """
        self._current = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Returns the credentials that gRPC listens with; new connections get what was read last."""
        return grpc.dynamic_ssl_server_credentials(
            self._current, lambda: self._current, require_client_authentication=self._client_ca is not None
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # An encrypted key would ask for its password.
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigurationError(
                f"tls: the certificate {self._certificate} and the key {self._key} cannot be used: {error}",
                field="tls.certificate",
            ) from error
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ssl.SSLError) as error:
                raise ConfigurationError(
                    f"tls: {self._client_ca} cannot be used: {error}", field="tls.client_ca"
                ) from error
        roots = self._client_ca.read_bytes() if self._client_ca else None
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)


def _no_password() -> str:
    raise ValueError("the key is encrypted")
