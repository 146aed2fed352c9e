"""The end of a call that failed: its error becomes a status and is sent."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from grpc import aio

from abstractllm.errors import AbstractLLMError
from abstractllm_server.convert.errors import status_of

__all__ = ["abort"]

_SENDING_TIMEOUT = 5.0
"""Seconds that a status may take to be sent."""


async def abort(context: aio.ServicerContext[Any, Any], error: AbstractLLMError) -> NoReturn:
    """Ends a call with the status of an error.

    Raises:
        grpc.aio.AbortError: Once the status is sent, so that the handler ends.
        asyncio.CancelledError: If the caller did not read, so that the status could not be sent in time.
    """
    status = status_of(error)
    # Where the caller does not read, the status waits behind what was written before: for a while, not for ever.
    try:
        async with asyncio.timeout(_SENDING_TIMEOUT):
            await context.abort(status.code, status.message, status.trailers)
    except TimeoutError:
        raise asyncio.CancelledError from None
    raise AssertionError("unreachable")
