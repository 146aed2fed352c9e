"""An Ollama server as it comes over the wire: lines of JSON, errors, what it tells about its models."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from abstractllm import create_llm
from abstractllm.interface import AbstractLLMInterface
from tests.providers.fake_http import Exchange, FakeServer, Handler, Received, answering, serving, streaming

NDJSON = {"Content-Type": "application/x-ndjson"}
MODEL = "llama3.2"
ABILITIES = ("completion", "tools", "vision", "thinking")


def line(content: str = "", **fields: Any) -> str:
    """One line of the answer; `thinking` and `tool_calls` belong to its message."""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    message |= {name: fields.pop(name) for name in ("thinking", "tool_calls") if name in fields}
    response = {"model": MODEL, "created_at": "2026-11-20T10:00:00Z", "message": message, "done": False} | fields
    return json.dumps(response) + "\n"


def done(reason: str | None = "stop", **fields: Any) -> str:
    """The last line."""
    numbers = {"total_duration": 5, "prompt_eval_count": 26, "eval_count": 4} | fields
    return line(done=True, **({"done_reason": reason} if reason is not None else {}), **numbers)


def answer(*pieces: str) -> list[str]:
    """A whole answer of text."""
    return [*(line(piece) for piece in pieces), done()]


def shown(
    abilities: Iterable[str] | None = ABILITIES, context_length: int = 131072, parameters: str = ""
) -> dict[str, Any]:
    """The answer of `/api/show` about a model."""
    details: dict[str, Any] = {
        "details": {"family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"},
        "model_info": {"general.architecture": "llama", "llama.context_length": context_length},
        "parameters": parameters,
    }
    return details if abilities is None else details | {"capabilities": list(abilities)}


def tags() -> dict[str, Any]:
    """The answer of `/api/tags`: the models that the server has."""
    return {
        "models": [
            {
                "name": name,
                "model": name,
                "modified_at": "2026-11-01T10:00:00+01:00",
                "size": size,
                "digest": digest,
                "details": {"family": "llama"},
            }
            for name, size, digest in (("qwen3:8b", 5_200_000_000, "cafe"), ("llama3.2:latest", 2_000_000_000, "beef"))
        ]
    }


def pulling(status: str, **fields: Any) -> str:
    """One line of a download."""
    return json.dumps({"status": status} | fields) + "\n"


def layer(digest: str, total: int, *completed: int) -> list[str]:
    """The lines about one layer, as it comes."""
    status = f"pulling {digest.removeprefix('sha256:')[:12]}"
    first = pulling(status, digest=digest, total=total)
    return [first, *(pulling(status, digest=digest, total=total, completed=done) for done in completed)]


def pulls(lines: Iterable[str], then: str = "end") -> Handler:
    """A server that answers every download with these lines; see `streaming` for `then`."""
    kept = list(lines)

    async def handle(exchange: Exchange) -> None:
        assert (exchange.request.path, exchange.request.json["stream"]) == ("/api/pull", True)
        await streaming(kept, then=then, headers=NDJSON)(exchange)

    return handle


def serves(chat: Handler, show: dict[str, Any] | Handler | None = None) -> Handler:
    """A server whose chat is played by `chat`."""
    show = shown() if show is None else show

    async def handle(exchange: Exchange) -> None:
        match exchange.request.path:
            case "/api/chat":
                assert exchange.request.json["stream"] is True
                await chat(exchange)
            case "/api/show":
                await (answering(show) if isinstance(show, dict) else show)(exchange)
            case "/api/tags":
                await exchange.respond(tags())
            case path:
                await exchange.respond({"error": f"no {path} here"}, 404)

    return handle


def says(lines: Iterable[str], *, then: str = "end", show: dict[str, Any] | Handler | None = None) -> Handler:
    """A server that answers every chat with these lines; see `streaming` for `then`."""
    kept = list(lines)

    async def chat(exchange: Exchange) -> None:
        await streaming(kept, then=then, headers=NDJSON)(exchange)

    return serves(chat, show)


def fails(status: int, message: str, *, retry_after: str | None = None) -> Handler:
    """A server that answers every chat with an error."""
    return serves(answering({"error": message}, status, {"retry-after": retry_after} if retry_after else None))


def raw(*pieces: bytes | str, then: str = "end", **headers: str) -> Handler:
    """A server that answers every chat with these bytes."""
    return serves(streaming(pieces, then=then, headers=NDJSON | headers))


@asynccontextmanager
async def asking(handler: Handler, **config: Any) -> AsyncIterator[tuple[AbstractLLMInterface, FakeServer]]:
    """An LLM of a server that plays `handler`; it tries once unless the configuration says otherwise."""
    async with (
        serving(handler) as server,
        create_llm("ollama", **{"base_url": server.url, "max_retries": 0} | config) as llm,
    ):
        yield llm, server


def chats(server: FakeServer) -> list[Received]:
    """The chat requests that have come."""
    return [request for request in server.requests if request.path == "/api/chat"]
