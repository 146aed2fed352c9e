"""SIGHUP: the configuration is read again and taken over while calls go on, or nothing of it is."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from abstractllm.registry import LLMRegistry
from abstractllm_api.v1 import models_pb2
from abstractllm_server.lifecycle.reload import ConfigurationReloader, Preparation
from abstractllm_server.lifecycle.service_manager import ServiceManager
from abstractllm_server.settings import Role, ServerSettings, TlsSettings
from tests.server.server_process import HANG, MAIN, ServerProcess, server_process
from tests.server.support import failure_of, request
from tests.waiting import until, wait_until

TAKEN, REFUSED = "the configuration is taken over", "the configuration is not taken over"
LLMS = "  echo: {provider: scripted}\n  other: {provider: scripted, reply: before}\n"
SLOW = [{"text": "a"}, {"delay": 1}, {"text": " b"}]


def rewrite(server: ServerProcess, text: str) -> None:
    """Replaces what the configuration holds behind its first line, which says where to listen."""
    first = server.file.read_text().splitlines()[0]
    server.file.write_text(f"{first}\n{text}")


def reload(server: ServerProcess, outcome: str = TAKEN) -> None:
    """Has the configuration read again, and waits for the outcome."""
    before = server.log.count(outcome)
    server.send(signal.SIGHUP)
    wait_until(lambda: server.log.count(outcome) > before)


def names(server: ServerProcess) -> list[str]:
    return [llm.name for llm in server.models.ListLlms(models_pb2.ListLlmsRequest(), timeout=HANG).llms]


def test_llms_change_while_calls_go_on(tmp_path: Path) -> None:
    with server_process(tmp_path, LLMS) as server:
        health = health_pb2_grpc.HealthStub(server.channel)
        watched = health.Watch(health_pb2.HealthCheckRequest(service="llm/added"), timeout=HANG)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        stream = server.begin(request(llm="other", script=SLOW))
        rewrite(server, "grace: 60\nllms:\n  echo: {provider: scripted}\n  added: {provider: scripted, reply: here}\n")
        reload(server)
        assert names(server) == ["added", "echo"]
        assert server.answer(llm="added") == "here"
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            server.answer(llm="other")
        assert failure_of(caught.value).reason == "UNKNOWN_LLM"  # type: ignore[arg-type]
        assert "".join(event.text_delta.text for event in stream) == " b"
        assert "added added, removed other; grace" in server.log
        # The new grace counts: 20 seconds are the default.
        stream = server.begin(request(script=[{"text": "a"}, {"delay": 3000}]))
        rewrite(server, "grace: 0.2\nllms:\n  echo: {provider: scripted}\n")
        reload(server)
        server.send(signal.SIGTERM)
        status, seconds = server.ends()
        assert status == 0
        assert seconds < 15
        stream.cancel()


FAULTS = {
    "an unknown key": ("llms:\n  echo: {provider: scripted, nonsense: 1}\n", "nonsense"),
    "no YAML": ("llms: [\n", "llms.yaml:"),
    "a missing variable": ("llms:\n  echo: {provider: scripted, reply: '${NOT_THERE_1}'}\n", "NOT_THERE_1"),
    "a file of tokens that is not there": ("tokens: /nowhere\nllms:\n  new: {provider: scripted}\n", "/nowhere"),
    "an empty file": ("", "at least one LLM"),
}


def test_any_fault_changes_nothing_and_is_told_and_the_next_good_one_is_taken(tmp_path: Path) -> None:
    with server_process(tmp_path, LLMS) as server:
        for text, words in FAULTS.values():
            rewrite(server, text)
            reload(server, REFUSED)
            assert words in server.log.partition(REFUSED)[2]
            assert names(server) == ["echo", "other"]
            assert server.answer(llm="other") == "before"
        server.file.rename(server.file.with_suffix(".gone"))
        reload(server, REFUSED)
        os.mkfifo(server.file)  # nobody writes to it
        reload(server, REFUSED)
        server.file.unlink()
        server.file.with_suffix(".gone").rename(server.file)
        rewrite(server, "llms:\n  echo: {provider: scripted, reply: after}\n")
        reload(server)
        assert server.answer() == "after"


def test_keys_that_take_a_restart_are_named_and_the_others_count(tmp_path: Path) -> None:
    with server_process(tmp_path, LLMS) as server, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        listen = f"listen: 127.0.0.1:{other.getsockname()[1]}\n"
        server.file.write_text(f"{listen}reflection: false\nlog_level: debug\nllms:\n  one: {{provider: scripted}}\n")
        for _ in range(2):  # the second one still differs from what counts
            reload(server)
        for key in ("listen", "reflection"):
            wait_until(lambda name=key: server.log.count(f"{name}: takes effect when") == 2)  # type: ignore[misc]
        assert names(server) == ["one"]
        assert server.answer() == "still there"


async def test_another_order_of_names_is_taken_over_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """Of the names in a certificate the first one counts, and of LLMs without a default."""
    caplog.set_level("INFO", "abstractllm")
    subjects, orders = {"a": Role.ADMIN, "b": Role.INFERENCE}, []

    def settings(order: slice) -> ServerSettings:
        names = dict(list(subjects.items())[order])
        tls = TlsSettings(certificate=Path("a"), key=Path("b"), client_ca=Path("c"), subjects=names)
        return ServerSettings(llms={name: {"provider": "scripted"} for name in names}, tls=tls)

    def prepare(settings: ServerSettings) -> Callable[[], None]:
        assert settings.tls is not None
        order = list(settings.tls.subjects)
        return lambda: orders.append(order)

    before, after = settings(slice(None)), settings(slice(None, None, -1))
    registry = LLMRegistry.from_config(before.llms)
    preparations: dict[str, Preparation] = {"tls.subjects": prepare}
    reloader = ConfigurationReloader(
        lambda: after, before, registry, preparations, ServiceManager(), lambda *names: None
    )
    task = asyncio.create_task(reloader.run())
    reloader.request()
    await until(lambda: reloader.outcomes["success"])
    assert orders == [["b", "a"]]
    assert registry.default == "b"
    assert "the configuration is taken over: no LLM changed; tls.subjects, default" in caplog.text
    task.cancel()
    await registry.close()


def test_reload_never_opens_what_listens_to_everybody(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{'0' * 64} admin\n")
    tokens.chmod(0o600)
    settings = f"tokens: {tokens}\n"
    with server_process(tmp_path, LLMS, settings=settings, listen="0.0.0.0:0") as server:
        # In the file it listens on this machine alone, where no token is needed; the running server does not.
        server.file.write_text("listen: 127.0.0.1:0\nllms:\n  echo: {provider: scripted}\n")
        reload(server, REFUSED)
        assert "can be reached from other machines" in server.log
        assert "until the server is started again listen has its earlier value" in server.log


def test_many_reloads_at_once_lose_no_call(tmp_path: Path) -> None:
    with server_process(tmp_path, LLMS) as server:
        for number in range(20):
            text = f"reply: v{number}"
            rewrite(server, f"llms:\n  echo: {{provider: scripted}}\n  other: {{provider: scripted, {text}}}\n")
            server.send(*[signal.SIGHUP] * 10)
            assert server.answer() == "still there"
        wait_until(lambda: server.answer(llm="other") == "v19")
        server.send(signal.SIGHUP, signal.SIGTERM)
        assert server.ends()[0] == 0


def test_server_without_a_file_says_so_and_goes_on(tmp_path: Path) -> None:
    program = """
import sys
from abstractllm_server.app import run
from abstractllm_server.settings import load_settings
listen = open(sys.argv[1]).readline().split()[1]
sys.exit(run(load_settings(None, {"listen": listen, "llms": {"echo": {"provider": "scripted"}}})))
"""
    with server_process(tmp_path, program=program) as server:
        reload(server, REFUSED)
        assert "no configuration file" in server.log
        assert server.answer() == "still there"


def test_sd_notify_tells_the_service_manager_of_the_servers_life(tmp_path: Path) -> None:
    messages: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))

        def read() -> None:
            while data := manager.recv(4096):
                messages.append(data.decode())

        def ready() -> int:
            return sum(text.startswith("READY=1") for text in messages)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with contextlib.ExitStack() as stack:
            # A thread that still reads would read from whatever gets the descriptor next.
            stack.callback(reader.join)
            stack.callback(manager.sendto, b"", str(tmp_path / "notify"))
            server = stack.enter_context(server_process(tmp_path, LLMS, environment=environment))
            wait_until(lambda: messages.count("WATCHDOG=1") >= 2)
            assert messages[0].startswith("READY=1\nSTATUS=listening on unix:")
            reload(server)
            # The log tells of a reload before the manager is told of its end.
            wait_until(lambda: messages[-1].startswith("WATCHDOG=1") and ready() == 2)
            kinds = [text.partition("=")[0] for text in messages if not text.startswith("WATCHDOG=1")]
            assert kinds == ["READY", "RELOADING", "READY"]
            assert any(text.startswith("RELOADING=1\nMONOTONIC_USEC=") for text in messages)
            server.send(signal.SIGTERM)
            assert server.ends()[0] == 0
            wait_until(lambda: any(text.startswith("STOPPING=1\nEXTEND_TIMEOUT_USEC=20") for text in messages))


def test_watchdog_gets_no_sign_of_life_of_a_blocked_loop(tmp_path: Path) -> None:
    program = """
import time
from abstractllm.testing import ScriptedProvider
async def load(self):
    print("blocked", flush=True)
    time.sleep(3000)
ScriptedProvider.load = load
"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000"}
        with server_process(tmp_path, program=program + MAIN, environment=environment) as server:
            wait_until(lambda: "blocked" in server.log)
            manager.settimeout(0.3)
            signs = 0
            with contextlib.suppress(TimeoutError):
                while manager.recv(4096):
                    signs += 1
            assert signs < 50


def test_tokens_names_and_timeouts_come_into_force_at_once(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("first", "second")}
    for name, file in files.items():
        file.write_text(f"{hashlib.sha256(name.encode()).hexdigest()} admin\n")
        file.chmod(0o600)
    llms = "llms:\n  echo: {provider: scripted, reply: 'x'}\n"

    def refusal(token: str) -> str:
        try:
            credentials = [("authorization", f"Bearer {token}")]
            server.generation.Generate(request(), timeout=HANG, metadata=credentials)
        except grpc.RpcError as error:
            return failure_of(error).reason  # type: ignore[arg-type]
        return ""

    with server_process(tmp_path, LLMS, settings=f"tokens: {files['first']}\n") as server:
        assert (refusal("first"), refusal("second")) == ("", "UNAUTHENTICATED")
        rewrite(server, f"tokens: {files['second']}\nwrite_timeout: 3\nread_timeout: 2\n{llms}")
        reload(server)
        assert (refusal("first"), refusal("second")) == ("UNAUTHENTICATED", "")
        # A change of the new file is taken over, too.
        files["second"].write_text(files["first"].read_text())
        wait_until(lambda: (refusal("first"), refusal("second")) == ("", "UNAUTHENTICATED"))
        assert "takes effect when" not in server.log


def test_a_model_that_cannot_be_loaded_is_told_with_its_llm(tmp_path: Path) -> None:
    program = """
import contextlib
from abstractllm.errors import ModelLoadError
from abstractllm.testing import ScriptedProvider
@contextlib.asynccontextmanager
async def prepared_for(self, config, *, replace):
    raise ModelLoadError("there is no memory", llm=self.name)
    yield
ScriptedProvider.prepared_for = prepared_for
"""
    with server_process(tmp_path, LLMS, program=program + MAIN) as server:
        rewrite(server, "llms:\n  echo: {provider: scripted, reply: other}\n")
        reload(server, REFUSED)
        assert "nothing has changed: llms.echo: there is no memory" in server.log


def test_signal_to_stop_while_a_reload_loads_a_model_ends_both(tmp_path: Path) -> None:
    program = """
import asyncio, contextlib
from abstractllm.testing import ScriptedProvider
@contextlib.asynccontextmanager
async def prepared_for(self, config, *, replace):
    print("loading", flush=True)
    await asyncio.sleep(3000)
    yield
ScriptedProvider.prepared_for = prepared_for
"""
    with server_process(tmp_path, LLMS, program=program + MAIN) as server:
        rewrite(server, "llms:\n  echo: {provider: scripted, reply: other}\n")
        server.send(signal.SIGHUP)
        wait_until(lambda: "loading" in server.log)
        assert server.answer() == "still there"
        server.send(signal.SIGTERM)
        assert server.ends()[0] == 0
