"""Asking replicas: one of them, or all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Iterator
from concurrent.futures import Future
from typing import Any

from abstractllm.errors import AbstractLLMError, ProviderUnavailableError, ServerShuttingDownError
from abstractllm.providers.ray.errors import translate, translating
from abstractllm.providers.ray.link import DeploymentLink
from abstractllm.providers.ray.plain import decode, error_of, plain_error

__all__ = ["Replicas"]


_GONE_RETRY_AFTER = 5.0
"""Seconds after which a cluster that was gone is looked for again."""


class Replicas:
    """The replicas of a deployment, as one asks them.

    Args:
        link: The link to the deployment.
    """

    def __init__(self, link: DeploymentLink) -> None:
        self._link = link

    async def available(self) -> None:
        """Waits until the deployment is there; it is made, or connected to, if it is not.

        Raises:
            AbstractLLMError: The reason why it cannot be.
        """
        attempt = self._link.ensure()
        if not attempt.done():
            await _done(attempt)
        if (error := attempt.exception()) is not None:
            # Each caller gets an error to be filled with facts of the call.
            raise error_of(plain_error(error)) if isinstance(error, AbstractLLMError) else translate(error)

    @property
    def are_available(self) -> bool:
        """True if nothing has to be waited for."""
        attempt = self._link.ensure()
        return attempt.done() and attempt.exception() is None

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Asks one replica, whichever has least to do.

        Raises:
            AbstractLLMError: The replica's own, or what Ray's means.
        """
        await self.available()
        with translating():
            response = getattr(self._link.handle, method).remote(*arguments)
        with _ended_with_its_caller(response):
            answer = await self._answer(response)
        return _result(answer)

    async def _answer(self, response: Awaitable[Any]) -> Any:
        """Waits for Ray, which would wait without end for a cluster, or replicas, that are gone.

        Raises:
            ProviderUnavailableError: If they are found to be gone meanwhile.
            ServerShuttingDownError: If the LLM is closed meanwhile.
        """
        limit = asyncio.timeout(None)
        try:
            async with limit:
                with self._link.ending(limit):
                    return await response
        except TimeoutError:
            if not limit.expired():
                raise
            if self._link.is_closed:
                raise ServerShuttingDownError("the LLM is closed") from None
            raise ProviderUnavailableError(
                f"the request is lost: {self._link.state[1]}", retry_after=_GONE_RETRY_AFTER
            ) from None

    async def ask_all(self, method: str, *arguments: Any) -> list[Any]:
        """Asks all replicas; those that end meanwhile are left out.

        Returns:
            The result of each, or the error that it answered with.
        """
        await self.available()
        with translating():
            response = self._link.handle.broadcast(method, *arguments)
            answers = await self._answer(response.results_async(return_exceptions=True))
        results: list[Any] = []
        for answer in answers:
            if isinstance(answer, dict):
                try:
                    results.append(_result(answer))
                except AbstractLLMError as error:
                    results.append(error)
        return results

    async def stream(self, method: str, *arguments: Any) -> AsyncGenerator[Any, None]:
        """Asks one replica for a stream; leaving it ends the replica's work.

        Raises:
            AbstractLLMError: What Ray's error means.
        """
        with translating():
            response = getattr(self._link.handle.options(stream=True), method).remote(*arguments)
        items = aiter(response)
        with _ended_with_its_caller(response), contextlib.suppress(StopAsyncIteration):
            while True:
                yield await self._answer(anext(items))

    async def whole(self, method: str, *arguments: Any) -> AsyncGenerator[Any, None]:
        """Asks one replica for a whole answer, as a stream of one item; leaving it ends the replica's work."""
        with translating():
            response = getattr(self._link.handle, method).remote(*arguments)
        with _ended_with_its_caller(response):
            item = await self._answer(response)
        yield item


@contextlib.contextmanager
def _ended_with_its_caller(response: Any) -> Iterator[None]:
    """Ends the work of the replica if whoever waits for the response leaves, and raises what Ray's errors mean."""
    try:
        with translating():
            yield
    except (asyncio.CancelledError, GeneratorExit):
        with contextlib.suppress(Exception):
            response.cancel()
        raise


def _result(answer: dict[str, Any]) -> Any:
    if "error" in answer:
        raise error_of(answer["error"])
    return decode(answer["result"])


async def _done(attempt: Future[None]) -> None:
    """Waits for an attempt, which goes on if the caller leaves."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Future[None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(done.set)

    attempt.add_done_callback(tell)
    await done.wait()
