"""SDK clients, kept and reused: one for each event loop and each set of connection settings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from abstractllm.errors import AbstractLLMError, ConfigurationError, ServerShuttingDownError
from abstractllm.providers.hosted.environment import check_environment

__all__ = ["LoopClients"]

C = TypeVar("C")


def _made(make: Callable[[], C]) -> C:
    """Makes a client; what goes wrong then is not the server's fault, and stays wrong."""
    # First, since an SDK may read the variables when it is imported.
    check_environment()
    try:
        return make()
    except AbstractLLMError:
        raise
    except Exception as error:
        if isinstance(error, OSError | ValueError | ImportError) or type(error).__name__ == "InvalidURL":
            # The words of such an error may repeat a proxy's address, and with it a password.
            raise ConfigurationError(
                f"the HTTP client cannot be made ({type(error).__name__}): check the environment's variables for "
                "proxies (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) and certificates (SSL_CERT_FILE, SSL_CERT_DIR)"
            ) from error
        raise


class _LoopClient(Generic[C]):
    """One client, made when first used, on the event loop that it belongs to."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.making = asyncio.Lock()
        self.keeper: AsyncGenerator[C, None] | None = None
        """A generator that was begun on the event loop, and closes the client when it is closed."""
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
        self._entries: dict[tuple[asyncio.AbstractEventLoop, Hashable], _LoopClient[C]] = {}
        self._closed = False

    @asynccontextmanager
    async def acquire(self, make: Callable[[], C], key: Hashable) -> AsyncIterator[C]:
        """Gives the running event loop's client to one request.

        Args:
            make: Makes a client. It runs in a thread, since importing an SDK and reading certificates take long.
            key: The connection settings that `make` uses.

        Raises:
            ServerShuttingDownError: If this object is closed.
            ConfigurationError: If the client cannot be made.
        """
        entry = self._entry(asyncio.get_running_loop(), key)
        entry.users += 1
        try:
            async with entry.making:
                if entry.client is None:
                    client = await asyncio.to_thread(_made, make)
                    entry.keeper = self._keep_open(client)
                    entry.client = await anext(entry.keeper)
            yield entry.client
        finally:
            entry.users -= 1
            if not entry.users and (key != self._key or self._closed):
                await self._end(asyncio.get_running_loop(), entry)

    def retire(self, key: Hashable) -> None:
        """Puts the connection settings `key` in force; clients with other ones are closed once they are idle."""
        with self._lock:
            self._key = key
            old = [(loop, entry) for (loop, other), entry in self._entries.items() if other != key]
        for loop, entry in old:
            self._on_loop(loop, partial(self._end_if_idle, loop, entry))

    async def close(self) -> None:
        """Closes every client: this event loop's before it returns, other loops' as soon as those run."""
        with self._lock:
            self._closed = True
            entries = [(loop, entry) for (loop, _), entry in self._entries.items()]
        for loop, entry in entries:
            if loop is asyncio.get_running_loop():
                await self._end(loop, entry)
            else:
                self._on_loop(loop, partial(self._end, loop, entry))

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    def _entry(self, loop: asyncio.AbstractEventLoop, key: Hashable) -> _LoopClient[C]:
        with self._lock:
            if self._closed:
                raise ServerShuttingDownError("the LLM is closed")
            for place in [place for place in self._entries if place[0].is_closed()]:
                del self._entries[place]
            return self._entries.setdefault((loop, key), _LoopClient(key))

    async def _keep_open(self, client: C) -> AsyncGenerator[C, None]:
        """Keeps a client open until the generator is closed.

        An event loop that shuts down (`asyncio.run`) closes the asynchronous generators that were begun on it: that
        closes the client while its loop still runs.
        """
        try:
            yield client
        finally:
            await self._close_client(client)

    async def _end_if_idle(self, loop: asyncio.AbstractEventLoop, entry: _LoopClient[C]) -> None:
        if not entry.users:
            await self._end(loop, entry)

    async def _end(self, loop: asyncio.AbstractEventLoop, entry: _LoopClient[C]) -> None:
        with self._lock:
            if self._entries.get((loop, entry.key)) is entry:
                del self._entries[loop, entry.key]
        keeper, entry.keeper = entry.keeper, None
        if keeper is not None:
            await keeper.aclose()

    @staticmethod
    def _on_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = function()
        try:
            asyncio.run_coroutine_threadsafe(task, loop)
        except RuntimeError:  # the loop is closed, and has closed its clients
            task.close()
