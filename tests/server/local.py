"""A server over one tiny model in a real engine process, and what its tests ask of both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.providers.huggingface.protocol.messages import Counters
from abstractllm_api.v1 import generation_pb2 as pb
from tests.server.support import Serving, serving
from tests.unit.tiny_models import build
from tests.waiting import until

PATIENCE = 90.0
"""Seconds after which a test gives up waiting: a busy machine may be ten times slower than a quiet one."""
ENDLESS = {1: -100.0, 3: -100.0}
"""Forbids the end tokens."""


class Local(Serving):
    """A running server whose LLM `local` is a tiny model."""

    llm: HuggingFaceProvider

    @property
    def counters(self) -> Counters:
        """The engine's."""
        return self.llm.counters

    def is_at_rest(self) -> bool:
        """True if nothing is left of any request: not in the server, nor in the engine, nor in its cache."""
        counters = self.counters
        return (
            counters.accepted == counters.released
            and not (
                counters.queued or counters.running or counters.active or counters.waiting or counters.blocks_in_use
            )
            and self.llm.running == 0
            and self.server.running == 0
        )

    async def comes_to_rest(self) -> None:
        """Waits until nothing is left of any request; shows that a next one is answered."""
        try:
            await until(self.is_at_rest)
        except TimeoutError:
            left = f"{self.llm.running} requests, {self.server.running} calls, {self.counters}"
            raise AssertionError(f"something is left: {left}") from None
        answer = await self.generation.Generate(ask("still there", max_tokens=3), timeout=PATIENCE)
        assert answer.usage.output_tokens == 3


@asynccontextmanager
async def local(
    folder: Path,
    beside: dict[str, AbstractLLMInterface] | None = None,
    window: int = 4096,
    write_timeout: float = 30.0,
    **config: Any,
) -> AsyncIterator[Local]:
    """Serves a tiny model, loaded, and other LLMs beside it.

    Args:
        folder: Where its checkpoint is written to.
        beside: The other LLMs.
        window: The model's context window.
        write_timeout: The server's.
        **config: Of the model's LLM.
    """
    directory = build(folder / "llama", "llama", max_position_embeddings=window)
    # The usual cache lies in each test's own home, and another one means another engine.
    cache = {"cache_dir": str(folder / "cache")}
    settings = cache | {"model": str(directory), "temperature": 0, "threads": 1, "kv_cache_bytes": 64 << 20}
    llm = HuggingFaceProvider(settings | config)
    async with serving({"local": llm, **(beside or {})}, write_timeout=write_timeout) as served:
        served.__class__ = Local
        assert isinstance(served, Local)
        served.llm = llm
        await asyncio.wait_for(llm.load(), PATIENCE)
        yield served


def ask(prompt: str = "hello", /, **parameters: Any) -> pb.GenerateRequest:
    """A request whose answer goes on until its limit."""
    parameters.setdefault("logit_bias", ENDLESS)
    return pb.GenerateRequest(prompt=prompt, parameters=pb.GenerationParameters(**parameters))
