"""A cluster that cannot be reached: told at once, by its key; used as soon as it is there, without a request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from abstractllm.errors import ConfigurationError, ProviderUnavailableError
from abstractllm.providers.ray import RayProvider, cluster
from abstractllm.providers.ray.cluster import Cluster, _start
from abstractllm.providers.ray.errors import UnansweredError
from abstractllm.providers.ray.link import DeploymentLink
from abstractllm.providers.ray.replicas import Replicas
from abstractllm.types import LlmState
from abstractllm_client import ProviderUnavailableError as Unavailable
from abstractllm_client import RemoteLLM
from tests.ray.replicas import ECHO, echo
from tests.ray.test_servers import other_server
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(300)


@contextlib.contextmanager
def forwarding(listener: socket.socket, target: tuple[str, int]) -> Iterator[None]:
    """Takes connections on a port and passes them on to another one, as long as the block runs."""
    ready, loops, done = threading.Event(), [], asyncio.Event()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*target)
        with contextlib.suppress(asyncio.CancelledError):  # the block is over
            await asyncio.gather(copy(reader, back), copy(there, writer))

    async def serve() -> None:
        listener.listen()
        server = await asyncio.start_server(pass_on, sock=listener)
        loops.append(asyncio.get_running_loop())
        ready.set()
        await done.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(done.set)
        thread.join()


def test_an_address_that_nobody_serves_is_named_and_used_once_somebody_does(ray_address: str, tmp_path: Path) -> None:
    host, port = ray_address.rsplit(":", 1)
    maker = echo()
    with socket.create_server((host, 0)) as reserved:
        address = f"{host}:{reserved.getsockname()[1]}"
    with (
        other_server(tmp_path, address, until="cannot be loaded") as (process, server),
        # Its retries take the pauses that the server asks for.
        RemoteLLM(server, channel_options=[("grpc.enable_retries", 0)]) as client,
    ):
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            client.generate("hi")
        assert time.monotonic() - began < 30
        assert caught.value.reason == "PROVIDER_UNAVAILABLE"
        assert f"ray_address: Ray at '{address}' cannot be reached" in str(caught.value)
        (llm,) = client.list_llms()
        assert (llm.state, "ray_address" in llm.state_reason) == ("failed", True)

        asyncio.run(maker.load())
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(address.rsplit(":", 1)[1])))
        with forwarding(listener, (host, int(port))):
            # No request asks for it: a server that is not ready gets none.
            wait_until(lambda: client.list_llms()[0].state == "ready")
            assert client.generate("there") == "there"
            process.kill()
            process.wait()
    maker.close()


@pytest.mark.parametrize("address", ["ray://head:10001", "http://127.0.0.1:8265", "head:gcs"])
def test_an_address_of_the_environment_that_is_none_is_named_as_such(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigurationError, match=r"RAY_ADDRESS: must be HOST:PORT") as caught:
        Cluster().join(RayProvider({"serves": "scripted"}).config)  # type: ignore[arg-type] # it has their keys
    assert address in str(caught.value)


def test_a_head_that_takes_connections_and_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()
    monkeypatch.setattr("abstractllm.providers.ray.cluster._ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(Cluster, "_connect", lambda *_: hanging.wait())
    silent = Cluster()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        llm = RayProvider({"ray_address": f"127.0.0.1:{listener.getsockname()[1]}", "serves": "scripted"})
        for _ in range(2):
            with pytest.raises(ProviderUnavailableError, match=r"ray_address: .* has not answered") as caught:
                silent.join(llm.config)  # type: ignore[arg-type] # it has their keys
            assert caught.value.retry_after
    hanging.set()


def test_a_ray_of_its_own_that_has_died_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()
    monkeypatch.setattr("abstractllm.providers.ray.cluster._ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(Cluster, "_connect", lambda *_: hanging.wait(30))
    lost = Cluster()
    lost._is_ours, lost._address = True, "local"
    lost.give_up(lost.connection)
    llm = RayProvider({"ray_address": "local", "serves": "scripted"})
    with pytest.raises(ProviderUnavailableError, match="start this process again") as caught:
        lost.join(llm.config)  # type: ignore[arg-type] # it has their keys
    assert caught.value.retry_after
    hanging.set()


def test_a_controller_that_does_not_answer_hinders_nobody() -> None:
    silent, hanging = Cluster(), threading.Event()
    with pytest.raises(UnansweredError):
        silent.take_turn(hanging.wait, 0.1)
    with pytest.raises(UnansweredError):  # it waits behind the first
        silent.take_turn(lambda: 1, 0.1)
    silent.give_up(silent.connection)
    assert silent.take_turn(lambda: 2, 30) == 2
    hanging.set()


async def test_what_waits_for_a_cluster_that_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = RayProvider(ECHO)
    link: DeploymentLink = llm._link
    monkeypatch.setattr(link, "_connection", cluster.cluster.connection)
    monkeypatch.setattr(link, "_try_again", lambda end: None)
    waiting = asyncio.create_task(Replicas(link)._answer(asyncio.Event().wait()))
    await asyncio.sleep(0)
    await asyncio.to_thread(link._lose, threading.Event(), "Ray does not answer any more")
    with pytest.raises(ProviderUnavailableError, match="does not answer") as caught:
        await waiting
    assert caught.value.retry_after
    assert llm.state == (LlmState.FAILED, "Ray does not answer any more")


def test_ray_does_not_end_this_process_when_its_head_has_gone() -> None:
    name, seen = "RAY_gcs_rpc_server_reconnect_timeout_s", []
    ray = SimpleNamespace(init=lambda **options: seen.append((options["address"], os.environ.get(name))))
    # Ray reads it when it connects; the processes of a Ray that is started here are to end.
    for address in ("head:6379", "local"):
        _start(ray, address, {})
    assert seen == [("head:6379", "1000000"), ("local", None)]
    assert name not in os.environ


def test_a_ray_that_does_not_start_in_time_is_ended_before_the_next_try() -> None:
    ended: list[object] = []

    class Node:
        def __init__(self) -> None:
            if not ended:
                raise Exception("The current node timed out during startup.")  # as Ray does

        def kill_all_processes(self, **_: object) -> None:
            ended.append(self)

    ray = SimpleNamespace(init=lambda **options: Node(), shutdown=lambda: None)
    _start(ray, "local", {})
    assert len(ended) == 1
