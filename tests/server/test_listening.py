"""The addresses of a server: loopback, IPv6, unix sockets; never the address of another server."""

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from abstractllm.errors import ConfigurationError
from abstractllm.registry import LLMRegistry
from abstractllm.testing import ScriptedProvider
from abstractllm_server.app import Server
from abstractllm_server.settings import ServerSettings
from abstractllm_server.transport.unix_socket import UnixSocket
from tests.addresses import has_ipv6
from tests.server.support import serving


def server(listen: str) -> Server:
    return Server(LLMRegistry({"echo": ScriptedProvider()}), ServerSettings(listen=listen, llms={"echo": {}}))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_free_port_is_taken_and_told(host: str) -> None:
    if host == "[::1]" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with serving(listen=f"{host}:0") as served:
        name, _, port = served.server.address.rpartition(":")
        assert name == host
        assert 0 < int(port) < 65536
        await served.works()


async def test_second_server_on_a_port_refuses() -> None:
    async with serving() as served:
        with pytest.raises(ConfigurationError, match="in use") as caught:
            await server(served.server.address).start()
        assert caught.value.field == "listen"
        assert served.server.address in caught.value.message
        await served.works()


async def test_port_is_free_again_after_the_stop() -> None:
    async with serving() as served:
        address = served.server.address
    async with serving(listen=address) as served:
        await served.works()


@pytest.mark.parametrize("key", ["listen", "health", "monitoring"])
@pytest.mark.parametrize(("host", "reason"), [("192.0.2.1", "assign"), ("no.such.host.invalid", "")])
async def test_address_that_this_machine_does_not_have_refuses_and_tells_why(key: str, host: str, reason: str) -> None:
    addresses = {"listen": "127.0.0.1:0", key: f"{host}:1"}
    settings = ServerSettings(llms={"echo": {}}, insecure=True, **addresses)
    with pytest.raises(ConfigurationError, match=rf"{key}: cannot listen on {host}:1; .*{reason}") as caught:
        await Server(LLMRegistry({"echo": ScriptedProvider()}), settings).start()
    assert "in use" not in caught.value.message


@pytest.mark.parametrize("form", ["unix://{}", "unix:{}"])
async def test_unix_socket_is_served_and_removed(tmp_path: Path, form: str) -> None:
    path = tmp_path / "llm.sock"
    before = os.umask(0)
    try:
        async with serving(listen=form.format(path)) as served:
            await served.works()
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert not path.exists()


async def test_relative_unix_path_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with serving(listen="unix:llm.sock") as served:
        await served.works()
        assert (tmp_path / "llm.sock").is_socket()


async def test_second_server_on_a_unix_path_refuses_and_the_first_goes_on(tmp_path: Path) -> None:
    listen = f"unix://{tmp_path / 'llm.sock'}"
    async with serving(listen=listen) as served:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="another server listens on") as caught:
                await server(listen).start()
            assert caught.value.field == "listen"
        async with aio.insecure_channel(served.server.address) as channel:
            await type(served)(served.server, served.registry, channel).works()
    async with serving(listen=listen) as served:
        await served.works()


async def test_socket_that_a_killed_server_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "llm.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving(listen=f"unix://{path}") as served:
        await served.works()


def test_socket_that_is_closed_twice_closes_nothing_of_others(tmp_path: Path) -> None:
    """A server that is ended by force after its stop does; the descriptor may be gRPC's by then."""
    one = UnixSocket(f"unix://{tmp_path / 'llm.sock'}")
    one.close()
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    one.close()
    for descriptor in others:
        os.close(descriptor)


def file_at(path: Path) -> None:
    path.write_text("precious")


def folder_at(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "make", "part"),
    [
        ("file", file_at, "is not a socket"),
        ("folder", folder_at, "is not a socket"),
        ("missing/llm.sock", None, "No such file"),
        ("x" * 150, None, "cannot listen on"),
    ],
)
async def test_path_that_cannot_be_a_socket_is_refused(tmp_path: Path, name: str, make: Any, part: str) -> None:
    path = tmp_path / name
    if make:
        make(path)
    with pytest.raises(ConfigurationError, match=part) as caught:
        await server(f"unix://{path}").start()
    assert caught.value.field == "listen"
    assert str(path) in caught.value.message
    if make is file_at:
        assert path.read_text() == "precious"


FORMS = ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::]"]


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
async def test_second_server_on_the_same_port_refuses_in_whatever_spelling(first: str, second: str) -> None:
    if {first, second} == {"127.0.0.1", "[::1]"}:
        pytest.skip("two addresses that have nothing in common")
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with serving(listen=f"{first}:0", insecure=True) as served:
        port = served.server.address.rpartition(":")[2]
        with pytest.raises(ConfigurationError, match="in use") as caught:
            await server(f"{second}:{port}").start()
        assert caught.value.field == "listen"


async def test_localhost_is_served_at_both_of_its_addresses() -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with serving(listen="localhost:0") as served:
        port = served.server.address.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            async with aio.insecure_channel(f"{host}:{port}") as channel:
                await type(served)(served.server, served.registry, channel).works()


async def test_socket_of_a_server_whose_lock_was_deleted_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "llm.sock"
    async with serving(listen=f"unix://{path}") as served:
        path.with_name("llm.sock.lock").unlink()
        with pytest.raises(ConfigurationError, match="another server listens on"):
            await server(f"unix://{path}").start()
        await served.works()


async def test_server_that_stops_leaves_the_socket_of_another_alone(tmp_path: Path) -> None:
    path = tmp_path / "llm.sock"
    first = server(f"unix://{path}")
    await first.start()
    path.unlink()
    path.with_name("llm.sock.lock").unlink()
    async with serving(listen=f"unix://{path}") as second:
        await first.stop(0)
        assert path.is_socket()
        async with aio.insecure_channel(second.server.address) as channel:
            await type(second)(second.server, second.registry, channel).works()
    assert not path.exists()
