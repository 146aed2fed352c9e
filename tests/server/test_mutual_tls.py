"""Mutual TLS: the kinds of names in certificates, and connections whose certificate is trusted no more."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from abstractllm.errors import AbstractLLMError
from abstractllm_client import AsyncRemoteLLM, ProviderUnavailableError
from abstractllm_client import AuthenticationError as RefusedError
from abstractllm_client import PermissionDeniedError as NotAllowedError
from abstractllm_server.security.certificate_names import CertificateNames
from abstractllm_server.security.certificate_validity import certificates_of, expiry_of, validity_of
from abstractllm_server.settings import Role
from tests.server.certificates import FUTURE, PAST, Authority, Pair
from tests.server.support import Serving, serving
from tests.server.test_auth import line
from tests.waiting import until


def certificate(cn: str = "", **names: str | list[str]) -> dict[str, list[bytes]]:
    """The properties of a connection whose certificate has these names, as gRPC has them."""
    kinds = {kind: [value] if isinstance(value, str) else value for kind, value in names.items()}
    properties = {f"peer_{kind}": [value.encode() for value in values] for kind, values in kinds.items()}
    alternatives = [value for values in properties.values() for value in values]
    if alternatives:
        properties["x509_subject_alternative_name"] = alternatives
    if cn:
        properties["x509_common_name"] = [cn.encode()]
    return properties


def outcome(subjects: Mapping[str, str], properties: Mapping[str, list[bytes]]) -> str:
    """The name by which a caller is known, or the error's reason."""
    names = CertificateNames({name: Role(role) for name, role in subjects.items()})
    try:
        return names.identify(properties).name
    except AbstractLLMError as error:
        return error.reason


ADMIN = {"operator": "admin"}
NAMES = [
    # A plain name is a DNS name or a URI, or the common name of a certificate that has no other names.
    (ADMIN, certificate("operator"), "operator"),
    (ADMIN, certificate("evil", dns="operator"), "operator"),
    (ADMIN, certificate("operator", dns="evil"), "NOT_ALLOWED"),
    (ADMIN, certificate("operator", email="evil@example.com"), "NOT_ALLOWED"),
    (ADMIN, certificate("operator", ip="10.0.0.1"), "NOT_ALLOWED"),
    (ADMIN, certificate("evil", email="operator"), "NOT_ALLOWED"),
    (ADMIN, certificate("evil", ip="operator"), "NOT_ALLOWED"),
    (ADMIN, certificate("", uri="operator"), "operator"),
    ({"spiffe://mesh/backend": "admin"}, certificate("x", uri="spiffe://mesh/backend"), "spiffe://mesh/backend"),
    # A name of a kind is that kind's alone.
    ({"cn:operator": "admin"}, certificate("operator", dns="x"), "cn:operator"),
    ({"cn:operator": "admin"}, certificate("x", dns="operator"), "NOT_ALLOWED"),
    ({"cn:operator": "admin"}, certificate("x", dns="cn:operator"), "NOT_ALLOWED"),
    ({"dns:operator": "admin"}, certificate("x", dns="operator"), "dns:operator"),
    ({"dns:operator": "admin"}, certificate("operator"), "NOT_ALLOWED"),
    ({"dns:operator": "admin"}, certificate("dns:operator"), "NOT_ALLOWED"),
    ({"dns:operator": "admin"}, certificate("x", uri="dns:operator"), "NOT_ALLOWED"),
    ({"uri:spiffe://m/b": "admin"}, certificate("x", uri="spiffe://m/b"), "uri:spiffe://m/b"),
    ({"uri:spiffe://m/b": "admin"}, certificate("spiffe://m/b"), "NOT_ALLOWED"),
    ({"email:a@b.c": "admin"}, certificate("x", email="a@b.c"), "email:a@b.c"),
    ({"email:a@b.c": "admin"}, certificate("x", dns="a@b.c"), "NOT_ALLOWED"),
    ({"ip:10.0.0.1": "admin"}, certificate("x", ip="10.0.0.1"), "ip:10.0.0.1"),
    ({"10.0.0.1": "admin"}, certificate("x", ip="10.0.0.1"), "NOT_ALLOWED"),
    # What gRPC says of other kinds of names is no name.
    ({"other types of SAN": "admin"}, {"x509_subject_alternative_name": [b"other types of SAN"]}, "UNAUTHENTICATED"),
    # Names are compared as they are.
    (ADMIN, certificate("x", dns="Operator"), "NOT_ALLOWED"),
    (ADMIN, certificate("x", dns="operator\0.evil"), "NOT_ALLOWED"),
    (ADMIN, certificate("x", dns="*"), "NOT_ALLOWED"),
    # Of several names the first in the configuration counts.
    ({"b": "inference", "a": "admin"}, certificate("x", dns=["a", "b"]), "b"),
    (ADMIN, {}, "UNAUTHENTICATED"),
    (ADMIN, {"x509_common_name": [b"\xff"]}, "NOT_ALLOWED"),
]


@pytest.mark.parametrize(("subjects", "properties", "expected"), NAMES)
def test_a_name_counts_for_its_kind(
    subjects: dict[str, str], properties: dict[str, list[bytes]], expected: str
) -> None:
    assert outcome(subjects, properties) == expected


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("root"))


def client(running: Serving, root: Authority, pair: Pair, token: str | None = None) -> AsyncRemoteLLM:
    port = running.server.address.rpartition(":")[2]
    return AsyncRemoteLLM(
        f"localhost:{port}",
        token=token,
        timeout=10,
        root_certificates=root.pair.certificate.read_bytes(),
        certificate_chain=pair.certificate.read_bytes(),
        private_key=pair.key.read_bytes(),
        channel_options=[("grpc.enable_retries", 0)],
    )


async def test_a_certificate_has_the_role_of_its_own_names(root: Authority) -> None:
    server = root.sign("server")
    tls = {"certificate": server.certificate, "key": server.key, "client_ca": root.pair.certificate}
    subjects = {
        "cn:old-style": "inference",
        "operator": "admin",
        "uri:spiffe://mesh/a": "admin",
        "email:a@b.c": "admin",
    }
    cases = [
        ("evil", "DNS:operator", None),
        ("operator", "DNS:evil", NotAllowedError),
        ("operator", "email:x@y.z", NotAllowedError),
        ("operator", "otherName:1.2.3.4;UTF8:x", NotAllowedError),
        ("operator", "", None),
        ("old-style", "DNS:evil", NotAllowedError),
        ("x", "URI:spiffe://mesh/a", None),
        ("x", "URI:email:a@b.c", NotAllowedError),
        ("x", "email:a@b.c", None),
    ]
    async with serving(tls=tls | {"subjects": subjects}) as running:
        for number, (name, alternatives, refusal) in enumerate(cases):
            pair = root.sign(name, alternatives=alternatives, file=f"case{number}")
            async with client(running, root, pair) as llm:
                try:
                    assert "model" in await llm.get_config(), (name, alternatives)
                    assert refusal is None
                except NotAllowedError:
                    assert refusal is NotAllowedError, (name, alternatives)
                if name == "old-style":
                    assert await llm.generate("hi there") == "hi there"


def put(source: bytes, target: Path) -> None:
    copy = target.with_suffix(".new")
    copy.write_bytes(source)
    copy.rename(target)


async def test_an_open_connection_does_not_outlive_its_root(root: Authority, tmp_path: Path) -> None:
    server, second = root.sign("server"), Authority(tmp_path, "second")
    ca = tmp_path / "ca.crt"
    first_root, second_root = root.pair.certificate.read_bytes(), second.pair.certificate.read_bytes()
    put(first_root, ca)
    tls = {"certificate": server.certificate, "key": server.key, "client_ca": ca, "subjects": {"backend": "inference"}}
    async with (
        serving(tls=tls) as running,
        client(running, root, root.sign("backend")) as old,
        client(running, root, second.sign("backend")) as new,
    ):
        closed = running.server._connections.closed
        assert await old.generate("hi there") == "hi there"
        # A root that comes beside the other changes nothing for those who are connected.
        put(first_root + second_root, ca)
        await until(lambda: running.server._access.watcher.outcomes["certificate", "success"] == 1)
        assert await old.generate("hi there") == "hi there"
        assert await new.generate("hi there") == "hi there"
        assert not closed["outdated"]
        # Once the first is gone, only those may come again whose certificate is from the second.
        put(second_root, ca)
        await until(lambda: closed["outdated"] >= 1)
        for _ in range(3):
            with pytest.raises(ProviderUnavailableError):
                await old.generate("hi there")
        await until_answered(new)


async def until_answered(llm: AsyncRemoteLLM) -> None:
    for _ in range(100):
        try:
            assert await llm.generate("hi there") == "hi there"
            return
        except ProviderUnavailableError:
            await asyncio.sleep(0.05)
    raise AssertionError("the caller is not answered")


@pytest.mark.parametrize("with_token", [False, True])
async def test_a_certificate_that_expires_on_an_open_connection_is_refused(
    root: Authority, tmp_path: Path, with_token: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, tokens = root.sign("server"), tmp_path / "tokens"
    put(line("good", "inference").encode(), tokens)
    tls = {"certificate": server.certificate, "key": server.key, "client_ca": root.pair.certificate}
    credentials = {"tokens": tokens} if with_token else {}
    async with (
        serving(tls=tls | {"subjects": {"backend": "inference"}}, **credentials) as running,
        client(running, root, root.sign("backend"), token="good" if with_token else None) as llm,
    ):
        assert await llm.generate("hi there") == "hi there"
        later = time.time() + 3 * 86_400
        monkeypatch.setattr("abstractllm_server.security.certificate_names.time.time", lambda: later)
        with pytest.raises(RefusedError, match="expired"):
            await llm.generate("hi there")


LATER = ("20490101000000Z", "20510101000000Z")
"""After 2049 a time has another form."""


@pytest.mark.parametrize("dates", [PAST, FUTURE, LATER])
def test_the_validity_of_a_certificate_is_read(root: Authority, dates: tuple[str, str]) -> None:
    pair = root.sign("dated", dates=dates, file=f"dated{dates[1]}")
    (pem,) = certificates_of(b"# a comment\n" + pair.certificate.read_bytes())
    expected = [datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp() for text in dates]
    assert validity_of(pem) == tuple(expected)
    assert expiry_of(pem) == expected[1]


@pytest.mark.parametrize("content", [b"", b"AAAA", b"MIIB", b"MAMCAQE=", b"MIL/////", b"!"])
def test_the_expiry_of_what_is_no_certificate_is_not_known(content: bytes) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n" + content + b"\n-----END CERTIFICATE-----\n"
    assert [expiry_of(item) for item in certificates_of(pem)] == [None]
