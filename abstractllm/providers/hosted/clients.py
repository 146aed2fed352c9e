"""SDK clients, kept and reused: one for each event loop and each set of connection settings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from abstractllm.errors import ServerShuttingDownError

__all__ = ["LoopClients"]

C = TypeVar("C")


class _Kept(Generic[C]):
    """One client, made when first used, on the event loop that it belongs to."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.making = asyncio.Lock()
        self.keeper: AsyncGenerator[C, None] | None = None
        self.client: C | None = None
        self.users = 0


class LoopClients(Generic[C]):
    """Clients of an HTTP API; an asynchronous client can be used on one event loop only.

    A client is closed when this object is, when its event loop shuts down, or when the connection settings have
    changed and its last request is answered.

    Args:
        close: Closes a client, on its event loop.
        key: The connection settings in force.
    """

    def __init__(self, close: Callable[[C], Awaitable[None]], key: Hashable) -> None:
        self._close_client = close
        self._key = key
        self._lock = threading.Lock()
        self._kept: dict[tuple[asyncio.AbstractEventLoop, Hashable], _Kept[C]] = {}
        self._closed = False

    @asynccontextmanager
    async def lease(self, make: Callable[[], C], key: Hashable) -> AsyncIterator[C]:
        """The running event loop's client, for one request.

        Args:
            make: Makes a client. It runs in a thread: importing an SDK and reading certificates take long.
            key: The connection settings that `make` uses.

        Raises:
            ServerShuttingDownError: If this object is closed.
        """
        kept = self._find(asyncio.get_running_loop(), key)
        kept.users += 1
        try:
            async with kept.making:
                if kept.client is None:
                    client = await asyncio.to_thread(make)
                    kept.keeper = self._keep(client)
                    kept.client = await anext(kept.keeper)
            yield kept.client
        finally:
            kept.users -= 1
            if not kept.users and (key != self._key or self._closed):
                await self._end(asyncio.get_running_loop(), kept)

    def retire(self, key: Hashable) -> None:
        """Makes `key` the connection settings in force; clients with others go once they are idle."""
        with self._lock:
            self._key = key
            old = [(loop, kept) for (loop, other), kept in self._kept.items() if other != key]
        for loop, kept in old:
            self._on_loop(loop, partial(self._end_if_idle, loop, kept))

    async def close(self) -> None:
        """Closes every client: this event loop's before it returns, other loops' as soon as those run."""
        with self._lock:
            self._closed = True
            kept = [(loop, kept) for (loop, _), kept in self._kept.items()]
        for loop, one in kept:
            if loop is asyncio.get_running_loop():
                await self._end(loop, one)
            else:
                self._on_loop(loop, partial(self._end, loop, one))

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _find(self, loop: asyncio.AbstractEventLoop, key: Hashable) -> _Kept[C]:
        with self._lock:
            if self._closed:
                raise ServerShuttingDownError("the LLM is closed")
            for gone in [place for place in self._kept if place[0].is_closed()]:
                del self._kept[gone]
            return self._kept.setdefault((loop, key), _Kept(key))

    async def _keep(self, client: C) -> AsyncGenerator[C, None]:
        """Holds a client open.

        An event loop that shuts down (`asyncio.run`) closes the asynchronous generators that were begun on it: that
        closes the client while its loop still runs.
        """
        try:
            yield client
        finally:
            await self._close_client(client)

    async def _end_if_idle(self, loop: asyncio.AbstractEventLoop, kept: _Kept[C]) -> None:
        if not kept.users:
            await self._end(loop, kept)

    async def _end(self, loop: asyncio.AbstractEventLoop, kept: _Kept[C]) -> None:
        with self._lock:
            if self._kept.get((loop, kept.key)) is kept:
                del self._kept[loop, kept.key]
        keeper, kept.keeper = kept.keeper, None
        if keeper is not None:
            await keeper.aclose()

    @staticmethod
    def _on_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = function()
        try:
            asyncio.run_coroutine_threadsafe(task, loop)
        except RuntimeError:  # the loop is closed, and has closed its clients
            task.close()
