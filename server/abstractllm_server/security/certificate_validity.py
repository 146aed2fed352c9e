"""The time in which a certificate is valid: the one field that is read of it here (RFC 5280, section 4.1)."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from functools import lru_cache

__all__ = ["certificates_of", "expiry_of", "validity_of"]

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_SEQUENCE, _EXPLICIT_VERSION = 0x30, 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_FIELDS_BEFORE_VALIDITY = 3
"""Serial number, algorithm and issuer."""


def certificates_of(pem: bytes) -> tuple[str, ...]:
    """Returns each certificate of a file, in PEM."""
    text = pem.decode("latin-1")
    return tuple(_BEGIN + part.partition(_END)[0] + _END for part in text.split(_BEGIN)[1:])


def expiry_of(pem: str) -> float | None:
    """Returns the end of a certificate's validity in seconds since 1970; None if it cannot be read.

    Args:
        pem: The certificate, in PEM.
    """
    validity = validity_of(pem)
    return None if validity is None else validity[1]


@lru_cache(maxsize=1024)
def validity_of(pem: str) -> tuple[float, float] | None:
    """Returns the beginning and the end of a certificate's validity in seconds since 1970; None if it cannot be read.

    Args:
        pem: The certificate, in PEM.
    """
    try:
        _, certificate, _ = _element(ssl.PEM_cert_to_DER_cert(pem.strip()))
        _, fields, _ = _element(certificate)
        tag, _, rest = _element(fields)
        if tag == _EXPLICIT_VERSION:
            fields = rest
        for _ in range(_FIELDS_BEFORE_VALIDITY):
            _, _, fields = _element(fields)
        tag, validity, _ = _element(fields)
        if tag != _SEQUENCE:
            return None
        tag, value, rest = _element(validity)
        beginning = _time(tag, value)
        tag, value, _ = _element(rest)
        return beginning, _time(tag, value)
    except (ValueError, IndexError):
        return None


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Returns the tag and the content of the element that DER data begins with, and the data behind it."""
    tag, length, start = data[0], data[1], 2
    if length >= 0x80:
        start += length - 0x80
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ValueError("the data is cut off")
    return tag, data[start : start + length], data[start + length :]


def _time(tag: int, value: bytes) -> float:
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280: years from 50 on are of the twentieth century
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
