"""TLS and mutual TLS with real certificates: who gets in, who does not, and how certificates are exchanged."""

import asyncio
import shutil
import ssl
from contextlib import AsyncExitStack

import pytest

from abstractllm.errors import ConfigurationError
from abstractllm_client import AsyncRemoteLLM, AuthenticationError, PermissionDeniedError, ProviderUnavailableError
from abstractllm_server.security.tls import Certificates
from abstractllm_server.settings import ServerSettings
from tests.addresses import has_ipv6
from tests.server.certificates import PAST, Authority, Pair
from tests.server.support import serving
from tests.server.test_auth import line
from tests.waiting import until

NO_RETRIES = [("grpc.enable_retries", 0)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def server_pair(root):
    return root.sign("server")


def client(running, root, pair: Pair | None = None, **options):
    """A client that trusts the root and brings the certificate."""
    files = {"root_certificates": root.pair.certificate.read_bytes()}
    if pair is not None:
        files |= {"certificate_chain": pair.certificate.read_bytes(), "private_key": pair.key.read_bytes()}
    port = running.server.address.rpartition(":")[2]
    return AsyncRemoteLLM(f"localhost:{port}", timeout=10, **files, **options)


def tls(pair, **further):
    return {"certificate": pair.certificate, "key": pair.key, **further}


async def test_an_answer_comes_through_tls(root, server_pair):
    async with serving(tls=tls(server_pair)) as running, client(running, root) as llm:
        assert await llm.generate("hi there") == "hi there"


async def refused(running, root, pair=None, **options):
    """True if the connection is refused: nothing of the call is answered."""
    async with client(running, root, pair, channel_options=NO_RETRIES, **options) as llm:
        try:
            await llm.generate("hi")
        except ProviderUnavailableError:
            return True
        return False


async def test_a_caller_who_does_not_trust_the_server_or_speaks_plain_text_gets_nothing(root, server_pair, tmp_path):
    other = Authority(tmp_path, "other")
    async with serving(tls=tls(server_pair)) as running:
        assert await refused(running, other)
        async with AsyncRemoteLLM(running.server.address, timeout=10, channel_options=NO_RETRIES) as llm:
            with pytest.raises(ProviderUnavailableError):
                await llm.generate("hi")
        assert not await refused(running, root)


@pytest.mark.parametrize("kind", ["expired", "other host", "self-signed"])
async def test_a_server_with_a_bad_certificate_is_refused_by_the_client(root, kind, tmp_path):
    signer = root if kind != "self-signed" else Authority(tmp_path, "self")
    pair = signer.sign(
        "elsewhere", dates=PAST if kind == "expired" else None, host="elsewhere", file=kind.replace(" ", "-")
    )
    async with serving(tls=tls(pair)) as running:
        assert await refused(running, root)


async def test_certificates_have_roles(root, server_pair):
    roles = {"backend": "inference", "operator": "admin"}
    settings = tls(server_pair, client_ca=root.pair.certificate, subjects=roles)
    async with serving(tls=settings) as running:
        async with client(running, root, root.sign("backend")) as llm:
            assert await llm.generate("hi there") == "hi there"
            assert [piece async for piece in await llm.generate("hi there", stream=True)]
            with pytest.raises(PermissionDeniedError):
                await llm.get_config()
        async with client(running, root, root.sign("operator")) as llm:
            assert "model" in await llm.get_config()
        async with client(running, root, root.sign("stranger")) as llm:
            with pytest.raises(PermissionDeniedError, match="stranger"):
                await llm.generate("hi")


@pytest.mark.parametrize("kind", ["none", "expired", "other root", "self-signed"])
async def test_a_caller_with_a_bad_certificate_gets_no_connection(root, server_pair, kind, tmp_path):
    pair = None
    if kind == "expired":
        pair = root.sign("backend", dates=PAST, file="old")
    elif kind != "none":
        other = Authority(tmp_path, "other")
        pair = other.pair if kind == "self-signed" else other.sign("backend")
    settings = tls(server_pair, client_ca=root.pair.certificate, subjects={"backend": "inference"})
    async with serving(tls=settings) as running:
        assert await refused(running, root, pair)
        assert not await refused(running, root, root.sign("backend"))


async def test_tokens_give_the_role_where_certificates_have_none(root, server_pair, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(line("good", "inference"))
    settings = tls(server_pair, client_ca=root.pair.certificate)
    async with serving(tls=settings, tokens=tokens) as running:
        async with client(running, root, root.sign("backend"), token="good") as llm:
            assert await llm.generate("hi there") == "hi there"
        async with client(running, root, root.sign("backend")) as llm:
            with pytest.raises(AuthenticationError):
                await llm.generate("hi")


async def test_new_certificates_are_taken_over_under_load_and_broken_ones_are_not(root, tmp_path):
    """The running server goes from one root to another; calls on open connections see nothing of it."""
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    live = Pair(tmp_path / "live.crt", tmp_path / "live.key")

    def install(pair):
        # Renamed into place, as a file that is half written must not be read.
        for source, target in ((pair.key, live.key), (pair.certificate, live.certificate)):
            copy = target.with_suffix(".new")
            shutil.copy(source, copy)
            copy.rename(target)

    install(first.sign("server", file="one"))
    async with serving(tls=tls(live)) as running, client(running, first) as open_before:
        assert await open_before.generate("hi") == "hi"
        live.certificate.write_text("broken")
        await until(lambda: running.server._access.watcher.failed_reloads)
        assert not await refused(running, first)
        install(second.sign("server", file="two"))
        while await refused(running, second):
            assert await open_before.generate("hi") == "hi"
        assert await refused(running, first)
        assert await open_before.generate("hi") == "hi"


async def test_every_address_of_a_name_has_the_certificate_and_each_one_that_follows(root, tmp_path):
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    live = Pair(tmp_path / "live.crt", tmp_path / "live.key")
    async with AsyncExitStack() as stack:
        running = None
        for number in range(3):
            pair = root.sign("server", file=f"number{number}")
            shutil.copy(pair.key, live.key)
            shutil.copy(pair.certificate, live.certificate)
            if running is None:
                running = await stack.enter_async_context(serving(listen="localhost:0", tls=tls(live)))
            outcomes = running.server._access.watcher.outcomes
            await until(lambda taken=number, counts=outcomes: counts["certificate", "success"] == taken)
            port = int(running.server.address.rpartition(":")[2])
            for host in ("127.0.0.1", "::1"):
                shown = await asyncio.to_thread(ssl.get_server_certificate, (host, port))
                assert shown.split() == pair.certificate.read_text().split(), (number, host)


def test_certificate_and_key_must_belong_together(root, server_pair, tmp_path):
    other = root.sign("other")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Certificates(server_pair.certificate, other.key, None)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Certificates(server_pair.certificate, tmp_path / "none", None)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Certificates(server_pair.certificate, server_pair.key, server_pair.key)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"subjects": {"a": "admin"}}, "tls.subjects"),
        ({"client_ca": "ca.crt"}, "tls.client_ca"),
        ({"listen": "unix:///x/y"}, "tls"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings, field, tmp_path):
    listen = {"listen": settings.pop("listen")} if "listen" in settings else {}
    contradicting = ServerSettings(
        llms={"echo": {}}, tls={"certificate": "a.crt", "key": "a.key", **settings}, **listen
    )
    with pytest.raises(ConfigurationError) as caught:
        contradicting.check()
    assert caught.value.field == field


def test_mutual_tls_lets_a_server_listen_beyond_this_machine():
    tls_settings = {"certificate": "a.crt", "key": "a.key"}
    llms = {"echo": {}}
    with pytest.raises(ConfigurationError, match="no credentials"):
        ServerSettings(listen="0.0.0.0:0", llms=llms, tls=tls_settings).check()
    mutual_tls = tls_settings | {"client_ca": "ca.crt", "subjects": {"backend": "inference"}}
    ServerSettings(listen="0.0.0.0:0", llms=llms, tls=mutual_tls).check()
