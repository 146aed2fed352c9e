"""One replica: an LLM in a process that Ray Serve has started, asked by servers in other processes.

Nothing here raises through Ray: what goes wrong is answered as plain data, with all that an error tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Concatenate, ParamSpec, TypeVar

from abstractllm._core import sync_bridge
from abstractllm.errors import AbstractLLMError, InternalError, StaleConfigError
from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.ray.config import served_class
from abstractllm.providers.ray.load_failures import load_failure
from abstractllm.providers.ray.plain import decode, encode, facts_of_record, plain_error, plain_values
from abstractllm.requests import GenerationRequest
from abstractllm.types import Event
from abstractllm.utils.logging import setup_logging

__all__ = ["Replica"]

_AHEAD = 1024
"""Events that an answer may be ahead of the server that reads it."""
_BETWEEN_BATCHES = 0.005
"""Seconds between two batches of one stream: each takes Ray about a millisecond of both processes."""
P = ParamSpec("P")
ReplicaT = TypeVar("ReplicaT", bound="Replica")
T = TypeVar("T")


def _answering(
    method: Callable[Concatenate[ReplicaT, P], Awaitable[T]],
) -> Callable[Concatenate[ReplicaT, P], Awaitable[dict[str, Any]]]:
    """Turns a method's result, or the error that it raises, into plain data."""

    @functools.wraps(method)
    async def answer(self: ReplicaT, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        try:
            return {"result": encode(await method(self, *args, **kwargs)), "replica": self.name}
        except Exception as error:
            return {"error": _plain(error), "replica": self.name}

    return answer


def _plain(error: Exception) -> dict[str, Any]:
    """Returns an error as plain data; one that is none of the library's is a fault of the software."""
    if isinstance(error, AbstractLLMError) and not isinstance(error, InternalError):
        return plain_error(error)
    text = "".join(traceback.format_exception(error))
    fault = error if isinstance(error, InternalError) else InternalError(f"{type(error).__name__}: {error}")
    return plain_error(fault, text)


class Replica:
    """An LLM as Ray Serve runs it. It is ready once its model is loaded.

    Args:
        setup: `name` (the LLM's), `serves` (its provider), `values` (its keys), `version` (that of these, as a pair of
            numbers), `digest` (of the deployment), `load` (whether to load the model at once).
    """

    def __init__(self, setup: Mapping[str, Any]) -> None:
        setup_logging(logging.WARNING)
        self.name = _replica_name()
        self._digest = setup["digest"]
        self._version: tuple[int, int] = tuple(setup["version"])
        self._kind = served_class(setup["serves"])
        self._llm: AbstractLLMInterface[Any] = self._kind(setup["values"])
        self._llm.name = setup["name"]
        self._keys = frozenset(self._kind.config_type.model_fields)
        self._base = self._values = plain_values(self._llm.config, self._keys)
        self._changing: asyncio.Lock | None = None
        if not setup["load"]:
            return
        try:
            sync_bridge.call(self._llm.load)
        except Exception as error:
            raise RuntimeError(load_failure(_plain(error))) from None

    # Answers.

    async def answer(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Answers a request as a whole: all its events, and how it ended."""
        events: list[Any] = []
        request = self._request(call)
        end = await self._answer(call, request, events.append)
        return {"events": events, "end": end, "replica": self.name}

    async def stream(self, call: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Answers a request with batches of events: one each time that something is there, all that is there.

        The last batch says how it ended.
        """
        queue: asyncio.Queue[Any] = asyncio.Queue(_AHEAD)
        request = self._request(call)

        async def pump() -> None:
            end: Any = None
            try:
                end = await self._answer(call, request, queue.put)
            finally:
                if end is not None:
                    await queue.put(_End(end))

        task = asyncio.create_task(pump(), name="answer")
        sent_at = 0.0
        try:
            while True:
                items = [await queue.get()]
                if (early := sent_at + _BETWEEN_BATCHES - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                sent_at = time.monotonic()
                while not queue.empty():
                    items.append(queue.get_nowait())
                end = items.pop().value if isinstance(items[-1], _End) else None
                yield {
                    "events": items,
                    "end": end,
                    "replica": self.name,
                    "output_tokens": request.record.output_tokens,
                }
                if end is not None:
                    return
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _answer(
        self, call: Mapping[str, Any], request: GenerationRequest, add: Callable[[Any], Awaitable[None] | None]
    ) -> dict[str, Any]:
        """Answers a request, hands its events on as plain data, and tells how it ended."""
        error = None
        try:
            _continue_trace(call["trace"])
            await self._settle(call["version"], call["values"])
            async with aclosing(self._llm.run(request)) as events:
                async for event in events:
                    if (waiting := add(_plain_event(event))) is not None:
                        await waiting
        except Exception as failure:
            error = _plain(failure)
        return {"record": facts_of_record(request.record), "error": error}

    def _request(self, call: Mapping[str, Any]) -> GenerationRequest:
        """Returns a request as it is answered here: the server's LLM tries again, and has set its deadline."""
        request: GenerationRequest = decode(call["request"])
        self._llm.name = call["llm"]
        return dataclasses.replace(request, retry=False, timeout=call["timeout"])

    @_answering
    async def count(self, call: Mapping[str, Any]) -> int:
        """Counts the tokens of a request's prompt."""
        await self._settle(call["version"], call["values"])
        return await self._llm.run_count(self._request(call))

    @_answering
    async def capabilities(self, model: str | None) -> Any:
        """Returns the capabilities of a model."""
        return await self._llm.get_capabilities_async(model)

    # Configuration.

    @_answering
    async def preview(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the keys as a change would leave them."""
        return plain_values(await self._llm.preview(decode(changes)), self._keys)

    @_answering
    async def change(self, version: Iterable[int], changes: Mapping[str, Any]) -> dict[str, Any]:
        """Makes a change, which gives the configuration a version; returns the keys after it."""
        async with self._lock():
            if tuple(version) <= self._version:
                raise StaleConfigError("the configuration was changed meanwhile by another server; read it again")
            await self._llm.set_config_async(decode(changes))
            self._adopted(version, plain_values(self._llm.config, self._keys))
        return self._values

    @_answering
    async def configure(self, version: Iterable[int], values: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
        """Takes over a whole configuration of a version, unless there is a newer one."""
        await self._settle(version, values)
        self._base = dict(base)
        return True

    async def _settle(self, version: Iterable[int], values: Mapping[str, Any] | None) -> None:
        """Takes over a newer configuration: a server may have changed it before this replica was there."""
        if values is None or tuple(version) <= self._version:
            return
        async with self._lock():
            if tuple(version) <= self._version:
                return
            config = self._kind.config_type.parse(values)
            if config != self._llm.config:
                async with self._llm.prepared_for(config, replace=True):
                    self._llm.adopt(config)
            self._adopted(version, plain_values(config, self._keys))

    def _adopted(self, version: Iterable[int], values: dict[str, Any]) -> None:
        first, second = version
        self._version, self._values = (first, second), values

    def _lock(self) -> asyncio.Lock:
        """Returns the lock of changes, made in the event loop that answers."""
        if self._changing is None:
            self._changing = asyncio.Lock()
        return self._changing

    # Models on the disk and in memory.

    @_answering
    async def load(self) -> None:
        """Loads the model, if it is not loaded."""
        await self._llm.load()

    @_answering
    async def unload(self, force: bool) -> None:
        """Unloads the model."""
        async with aclosing(self._llm.unload(force=force)) as reports:
            async for _ in reports:
                pass

    @_answering
    async def cached_models(self) -> Any:
        """Lists the models on the disk of the replica's node."""
        return await self._llm.cached_models()

    @_answering
    async def clear_cache(self, model: str | None, dry_run: bool) -> Any:
        """Deletes models from the disk of the replica's node."""
        return await self._llm.clear_cache(model, dry_run=dry_run)

    async def pull(self, model: str | None) -> AsyncGenerator[dict[str, Any], None]:
        """Downloads a model to the disk of the replica's node."""
        try:
            async with aclosing(self._llm.pull(model)) as reports:
                async for report in reports:
                    yield {"result": encode(report)}
        except Exception as error:
            yield {"error": _plain(error)}

    @_answering
    async def pull_quietly(self, model: str | None) -> None:
        """Downloads a model to the disk of the replica's node, without reports."""
        async with aclosing(self._llm.pull(model)) as reports:
            async for _ in reports:
                pass

    # What servers look at.

    @_answering
    async def report(self, version: Iterable[int]) -> dict[str, Any]:
        """Tells how the replica is.

        Args:
            version: The version of the configuration that the server knows; a newer one is told whole.
        """
        state, reason = self._llm.state
        is_newer = self._version > tuple(version)
        return {
            "replica": self.name,
            "pid": os.getpid(),
            "tasks": len(asyncio.all_tasks()),
            "digest": self._digest,
            "version": self._version,
            "base": self._base if is_newer else None,
            "values": self._values if is_newer else None,
            "state": state,
            "reason": reason,
            "running": max(0, self._llm.running - self._llm.queued),
            "queued": self._llm.queued,
            "queued_bytes": self._llm.queued_bytes,
            "device": self._llm.device,
            "memory_bytes": self._llm.memory_bytes,
            "is_responsive": self._llm.is_responsive,
            "silence": self._llm.silence,
            "statistics": self._llm.engine_statistics,
        }


class _End:
    """The end of an answer, behind its last event."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.value = value


def _plain_event(event: Event) -> Any:
    return encode(event)


def _replica_name() -> str:
    """Returns the name that Ray Serve has given to this replica; empty outside of it."""
    try:
        from ray import serve

        return str(serve.get_replica_context().replica_tag)
    except Exception:  # Ray's own error, of a class that only Ray has
        return ""


def _continue_trace(headers: Mapping[str, str]) -> None:
    """Lets what is asked of a hosted LLM from here be part of the caller's trace."""
    if not headers:
        return
    try:
        from opentelemetry import context, propagate
    except ImportError:
        return
    context.attach(propagate.extract(dict(headers), context.Context()))
