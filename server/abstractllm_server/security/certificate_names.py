"""The names in callers' certificates, each kind a namespace of its own, and the roles that they have."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from abstractllm.errors import AuthenticationError, PermissionDeniedError
from abstractllm_server.security.certificate_validity import expiry_of
from abstractllm_server.security.identity import Identity
from abstractllm_server.settings import Role

__all__ = ["CertificateNames", "check_validity"]

_COMMON_NAME = "cn"
_PROPERTIES = {
    _COMMON_NAME: "x509_common_name",
    "dns": "peer_dns",
    "uri": "peer_uri",
    "email": "peer_email",
    "ip": "peer_ip",
}
"""The kinds of names, and gRPC's property of a connection that holds the names of each."""
_ALTERNATIVE_NAMES = "x509_subject_alternative_name"


class CertificateNames:
    """The roles of the names in callers' certificates.

    A name `KIND:NAME`, of a kind `cn`, `dns`, `uri`, `email` or `ip`, is that kind's alone. One without a kind is a
    subject alternative name of kind DNS or URI, or the common name of a certificate that has no alternative names at
    all: an authority that checks the alternative names need not have checked the common name beside them (RFC 9525,
    section 1.2; RFC 6125, section 6.4.4).

    Args:
        subjects: The role of each name. Where a certificate has several of them, the first one counts.
    """

    def __init__(self, subjects: Mapping[str, Role]) -> None:
        self._subjects = dict(subjects)

    def __bool__(self) -> bool:
        return bool(self._subjects)

    def identify(self, auth_context: Mapping[str, Iterable[bytes]]) -> Identity:
        """Returns the caller whose certificate a connection brought.

        Args:
            auth_context: gRPC's properties of the connection.

        Raises:
            AuthenticationError: If there is no certificate.
            PermissionDeniedError: If none of its names has a role.
        """
        names = list(_names(auth_context))
        if not names:
            raise AuthenticationError("a bearer token or a certificate is required", field="authorization")
        has_alternatives = bool(auth_context.get(_ALTERNATIVE_NAMES))
        texts = {f"{kind}:{name}" for kind, name in names}
        texts |= {name for kind, name in names if _may_be_plain(kind, name, has_alternatives)}
        for subject, role in self._subjects.items():
            if subject in texts:
                return Identity(subject, role)
        listed = ", ".join(f"{kind}:{name}" for kind, name in names)
        raise PermissionDeniedError(f"tls.subjects gives no role to a certificate with the names {listed[:200]}")


def check_validity(auth_context: Mapping[str, Iterable[bytes]]) -> None:
    """Checks that the certificate that a connection brought is still valid: TLS checked it when the connection began.

    Args:
        auth_context: gRPC's properties of the connection.

    Raises:
        AuthenticationError: If it has expired since.
    """
    for pem in auth_context.get("x509_pem_cert", ()):
        expiry = expiry_of(pem.decode("latin-1"))
        if expiry is not None and expiry < time.time():
            raise AuthenticationError("the certificate has expired", field="authorization")


def _names(auth_context: Mapping[str, Iterable[bytes]]) -> Iterator[tuple[str, str]]:
    """Yields the kind and the text of each name in a certificate."""
    for kind, key in _PROPERTIES.items():
        for name in auth_context.get(key, ()):
            yield kind, name.decode("utf-8", "backslashreplace")


def _may_be_plain(kind: str, name: str, has_alternatives: bool) -> bool:
    """Returns whether a name may stand in the configuration without its kind."""
    if name.partition(":")[0] in _PROPERTIES:  # it would pass for one of another kind
        return False
    return not has_alternatives if kind == _COMMON_NAME else kind in ("dns", "uri")
