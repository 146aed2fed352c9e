"""A quick stand-in for a hosted provider: Chat Completions over HTTP/1.1, whole or as an event stream.

    .venv/bin/python -m benchmarks.upstream        # prints its port, serves until it is ended

It is written on a bare `asyncio.Protocol`, so that its own cost does not hide the cost of the server in front of it.
"""

import asyncio
import json
import sys

CHUNKS = 32
"""Pieces of text in a streamed answer."""
WORDS = [f"word{index} " for index in range(CHUNKS)]
USAGE = {"prompt_tokens": 11, "completion_tokens": CHUNKS, "total_tokens": 11 + CHUNKS}


def _whole() -> bytes:
    message = {"role": "assistant", "content": "".join(WORDS)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    body = json.dumps(answer | {"usage": USAGE}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _pieces() -> list[bytes]:
    """Returns the head of a streamed answer, and its chunks."""

    def chunk(choices: list[object], **fields: object) -> bytes:
        event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return _framed(f"data: {json.dumps(event | {'choices': choices} | fields)}\n\n".encode())

    def choice(delta: dict[str, str], finish: str | None = None) -> list[object]:
        return [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]

    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [
        head + chunk(choice({"role": "assistant", "content": ""})),
        *(chunk(choice({"content": word})) for word in WORDS),
        chunk(choice({}, "stop")) + chunk([], usage=USAGE) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n",
    ]


def _framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Upstream(asyncio.Protocol):
    """One connection, on which each request is answered as soon as its body is there."""

    whole, pieces = _whole(), _pieces()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport of the new connection."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._received = b""
        self._writing: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Answers a request once its body is there."""
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if len(rest) < sum(lengths):
            return
        self._received = rest[sum(lengths) :]
        if b'"stream":true' in rest.replace(b" ", b""):
            self._writing = asyncio.get_running_loop().create_task(self._stream())
        else:
            self._transport.write(self.whole)

    async def _stream(self) -> None:
        """Writes every chunk on its own, as a model gives its tokens."""
        for piece in self.pieces:
            self._transport.write(piece)
            await asyncio.sleep(0)


async def serve() -> None:
    """Serves on a free port of this machine, which is printed first."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        sys.exit(0)
