"""The model cache that a command works on: on this machine, or on a server's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from abstractllm_cli import _options as options
from abstractllm_cli._server import Server

if TYPE_CHECKING:
    from abstractllm import AbstractLLMInterface
    from abstractllm_client import RemoteLLM

T = TypeVar("T")


class Cache(Protocol):
    """The methods of a cache that the commands use."""

    def list(self) -> Sequence[Any]:
        """Lists the models, as `CachedModel`s of the library or of the client."""

    def clear(self, model: str | None, *, dry_run: bool) -> tuple[Sequence[str], int]:
        """Deletes one model, or all of them if `model` is None; returns their names and the bytes that are freed."""

    def pull(self, model: str | None) -> Generator[Any, None, None]:
        """Downloads a model, and reports progress as `PullProgress`; closing the generator stops the download."""


@contextmanager
def open_cache(provider: str | None, cache_dir: Path | None, server: Server | None, llm: str | None) -> Iterator[Cache]:
    """Opens the cache that the command line names.

    Raises:
        AbstractLLMError: The library's or the client's, if there is no such provider or no such server.
    """
    if server is not None:
        with server.connect(llm, timeout=options.SHORT_CALL_SECONDS) as remote:
            yield RemoteCache(remote)
        return
    from abstractllm.factory import provider_class

    settings = {} if cache_dir is None else {"cache_dir": str(cache_dir)}
    with provider_class(provider or options.DEFAULT_PROVIDER)(settings) as local:
        yield LocalCache(local)


class LocalCache:
    """A provider's cache, used by this process."""

    def __init__(self, llm: AbstractLLMInterface) -> None:
        self._llm = llm

    def list(self) -> Sequence[Any]:
        """Lists the models; see `Cache.list`."""
        return _wait(self._llm.cached_models())

    def clear(self, model: str | None, *, dry_run: bool) -> tuple[Sequence[str], int]:
        """Deletes models; see `Cache.clear`."""
        return _wait(self._llm.clear_cache(model, dry_run=dry_run))

    def pull(self, model: str | None) -> Generator[Any, None, None]:
        """Downloads a model; any can be named, as no configuration lists the allowed ones. See `Cache.pull`."""
        import asyncio

        if model is not None:
            self._llm.set_config(model=model)
        reports = self._llm.pull()
        with asyncio.Runner() as runner:
            try:
                while (report := runner.run(_next(reports))) is not None:
                    yield report
            finally:
                runner.run(reports.aclose())


class RemoteCache:
    """A cache on a server."""

    def __init__(self, remote: RemoteLLM) -> None:
        self._remote = remote

    def list(self) -> Sequence[Any]:
        """Lists the models; see `Cache.list`."""
        return self._remote.list_cached_models()

    def clear(self, model: str | None, *, dry_run: bool) -> tuple[Sequence[str], int]:
        """Deletes models; see `Cache.clear`."""
        cleared = self._remote.clear_model_cache(model, all_models=model is None, dry_run=dry_run)
        return cleared.removed, cleared.freed_bytes

    def pull(self, model: str | None) -> Generator[Any, None, None]:
        """Downloads a model; see `Cache.pull`."""
        yield from self._remote.pull_model(model)


def _wait(coroutine: Coroutine[Any, Any, T]) -> T:
    import asyncio

    return asyncio.run(coroutine)


async def _next(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)
