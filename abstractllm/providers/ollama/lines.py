"""Asking an Ollama server for lines of JSON, through the connections of the SDK's client.

The SDK's own reader splits lines at every character that Unicode calls a line's end, though JSON may hold most of them,
and takes an empty line for broken JSON.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from abstractllm.errors import ProviderProtocolError
from abstractllm.providers.hosted import import_sdk
from abstractllm.providers.hosted.error_reports import tells_error
from abstractllm.providers.hosted.event_streams import read_json_lines

if TYPE_CHECKING:
    from ollama import AsyncClient

__all__ = ["post_for_lines"]


async def post_for_lines(
    client: AsyncClient, path: str, body: Mapping[str, Any]
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Posts a body, and yields the lines of the answer.

    Args:
        client: The SDK's client.
        path: The path of the API, such as `/api/chat`.
        body: What is posted.

    Raises:
        ollama.ResponseError: If the server refuses, or a line reports an error.
        ProviderProtocolError: If a line is no JSON object.
    """
    httpx, sdk = import_sdk("httpx", "ollama"), import_sdk("ollama")
    async with client._client.stream("POST", path, json=body) as response:
        try:
            response.raise_for_status()
        except httpx.HTTPStatusError:
            text = (await response.aread()).decode("utf-8", "replace")
            # In this form the SDK takes any text; the response stays on the error, as the one that was handled here.
            raise sdk.ResponseError(json.dumps({"error": text}), response.status_code) from None
        async with aclosing(read_json_lines(response.aiter_bytes())) as lines:
            async for line in lines:
                if not isinstance(line, Mapping):
                    raise ProviderProtocolError(f"the answer is not a JSON object: {line!r:.200}")
                if tells_error(line):
                    raise sdk.ResponseError(json.dumps({"error": line.get("error") or line}))
                yield line
