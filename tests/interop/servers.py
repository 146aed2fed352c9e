"""The servers of the interop suite, in a thread of their own: what the runners call, and what the checks look at."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.registry import LLMRegistry
from abstractllm.requests import GenerationRequest
from abstractllm.testing import ScriptedProvider, Step
from abstractllm.types import ChatMessage, Image, Reasoning, Text, ToolCall, ToolResult
from abstractllm_server.app import Server
from abstractllm_server.settings import ServerSettings
from tests.interop.recorder import Recorder
from tests.server.certificates import Authority

Result = TypeVar("Result")

HANG = 100.0
"""Seconds after which a behaviour counts as hanging."""
ADMIN, USER = "admin-token-71c3", "user-token-0b9d"
HUB_MODEL = "org/model"


class World:
    """All servers. `addresses` is what the runners are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.addresses: dict[str, str] = {}
        self.attempts: Counter[str] = Counter()
        """Calls of the LLM `flaky`, by request id."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)
        self._stack = AsyncExitStack()

    def start(self) -> None:
        """Starts all servers; the demo model is loaded when it returns."""
        self._thread.start()
        self.run(self._start())

    def stop(self) -> None:
        """Stops them."""
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(HANG)
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine in the servers' event loop and waits for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(HANG)

    async def _start(self) -> None:
        llms = self._make_llms()
        registry = LLMRegistry(llms)
        self.addresses["plain"] = await self._serve(registry, preload=["local"])
        # A socket's path has at most a hundred bytes or so.
        short = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="interop")))
        self.addresses["unix"] = await self._serve(self._make_echo(), listen=f"unix://{short / 'socket'}")
        await self._serve_guarded()
        self._restarted = await self._begin(self._make_echo(), {})
        self._stack.push_async_callback(lambda: self._restarted.stop(0))
        self.addresses["restarted"] = self._restarted.address
        self.recorder = Recorder()
        self.addresses["recorder"] = await self._stack.enter_async_context(self.recorder.serving())
        await asyncio.wait_for(llms["local"].load(), HANG)

    def _make_llms(self) -> dict[str, AbstractLLMInterface[Any]]:
        """Makes the LLMs of the server `plain`, and what the checks look at."""
        self.cache = self.folder / "cache"
        self.echo, self.mirror = ScriptedProvider(), ScriptedProvider(script=mirror)
        self.flaky = ScriptedProvider(script=self._fail_at_first)
        self.local = HuggingFaceProvider({"model": "demo", "threads": 1})
        self.spare = HuggingFaceProvider({"model": "demo", "threads": 1})
        self.hub = HuggingFaceProvider({"model": HUB_MODEL, "cache_dir": str(self.cache)})
        return {
            "echo": self.echo,
            "mirror": self.mirror,
            "flaky": self.flaky,
            "local": self.local,
            "spare": self.spare,
            "hub": self.hub,
            "settings": ScriptedProvider({"temperature": 0.5, "system_prompt": "Be brief."}),
        }

    def _make_echo(self) -> LLMRegistry:
        """Makes a registry with one LLM that says what it is told."""
        return LLMRegistry({"echo": ScriptedProvider()})

    async def _begin(self, registry: LLMRegistry, settings: dict[str, Any]) -> Server:
        settings = {"listen": "127.0.0.1:0", "llms": {llm.name: {} for llm in registry}} | settings
        server = Server(registry, ServerSettings(**settings))
        await server.start()
        return server

    async def _serve(self, registry: LLMRegistry, **settings: Any) -> str:
        server = await self._begin(registry, settings)
        self._stack.push_async_callback(server.stop, 0)
        return server.address

    async def _serve_guarded(self) -> None:
        """TLS, mutual TLS, and tokens over TLS; the files that callers need go to `addresses`, too."""
        if shutil.which("openssl") is None:
            raise RuntimeError("the interop suite needs the openssl command to make certificates")
        root, other = Authority(self.folder), Authority(self.folder, "other")
        pair = root.sign("server")
        files = {"certificate": pair.certificate, "key": pair.key}
        tokens = self.folder / "tokens"
        tokens.write_text(
            "".join(f"{hashlib.sha256(token.encode()).hexdigest()} {role}\n" for token, role in ROLES.items())
        )
        mutual = files | {"client_ca": root.pair.certificate, "subjects": {"backend": "inference"}}
        guards: dict[str, dict[str, Any]] = {
            "tls": {"tls": files},
            "mtls": {"tls": mutual},
            "tokens": {"tls": files, "tokens": tokens},
        }
        for name, settings in guards.items():
            address = await self._serve(self._make_echo(), **settings)
            self.addresses[name] = f"localhost:{address.rpartition(':')[2]}"
        client = root.sign("backend")
        self.addresses |= {
            "root_certificates": str(root.pair.certificate),
            "other_root_certificates": str(other.pair.certificate),
            "client_certificate": str(client.certificate),
            "client_key": str(client.key),
            "admin_token": ADMIN,
            "user_token": USER,
        }

    async def restart(self, seconds: float) -> None:
        """Stops the server `restarted`, and starts it again after a while, at the same address."""
        await self._restarted.stop(0)

        async def begin() -> None:
            await asyncio.sleep(seconds)
            self._restarted = await self._begin(self._make_echo(), {"listen": self.addresses["restarted"]})

        self._beginning = asyncio.create_task(begin())

    def _fail_at_first(self, request: GenerationRequest) -> Iterable[Step]:
        """Fails as often as the prompt says, counted by request id, then tells how often it was called."""
        wanted = json.loads(request.conversation()[-1].text)
        self.attempts[request.request_id] += 1
        if self.attempts[request.request_id] <= wanted["failures"]:
            return [wanted["error"]]
        return [{"text": f"attempt {self.attempts[request.request_id]}"}]


ROLES = {ADMIN: "admin", USER: "inference"}


def mirror(request: GenerationRequest) -> Iterable[Step]:
    """Answers with what arrived, as JSON."""
    told = {
        "messages": [message(one) for one in request.conversation()],
        "parameters": request.parameters.model_dump(exclude_none=True, exclude={"model"}),
        "response_format": described(request.response_format),
        "tools": [described(tool) for tool in request.tools],
        "tool_choice": described(request.tool_choice),
        "request_id": request.request_id,
        "labels": dict(request.labels),
        "has_timeout": request.timeout is not None,
    }
    return [{"text": json.dumps(told)}]


def message(chat_message: ChatMessage) -> dict[str, Any]:
    """A chat message in the form that runners use; long texts and bytes by their size and SHA-256."""
    return {"role": str(chat_message.role), "parts": [part(one) for one in chat_message.parts]}


def part(value: object) -> dict[str, Any]:
    """One part; see `message`."""
    match value:
        case Text(text=text) if len(text) > 10_000:
            told: dict[str, Any] = {"text": summary(text.encode())}
        case Text(text=text):
            told = {"text": text}
        case Image(data=data, mime_type=mime_type):
            told = {"image": {"mime_type": mime_type, **summary(data)}}
        case ToolCall():
            told = {"tool_call": {"id": value.id, "name": value.name, "arguments_json": value.arguments_json}}
        case ToolResult():
            result = {"tool_call_id": value.tool_call_id, "content": value.content, "is_error": value.is_error}
            told = {"tool_result": result}
        case Reasoning(text=text):
            told = {"reasoning": text}
        case _:
            raise TypeError(type(value))
    state: bytes = getattr(value, "provider_state", b"")
    return told | ({"provider_state": state.hex()} if state else {})


def summary(data: bytes) -> dict[str, Any]:
    """Returns the size and the digest that stand for bytes."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def described(instance: object) -> Any:
    """A dataclass by its name and the fields that are set."""
    if instance is None:
        return None
    fields = {name: getattr(instance, name) for name in instance.__slots__}  # type: ignore[attr-defined]
    return {"type": type(instance).__name__, **{name: value for name, value in fields.items() if value is not None}}
