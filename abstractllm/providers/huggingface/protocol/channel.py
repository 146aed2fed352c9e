"""Length-prefixed msgpack messages over a stream socket; both sides use this file."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

__all__ = ["MAX_FRAME_BYTES", "Channel", "encode"]

MAX_FRAME_BYTES = 256 * 2**20
"""Bytes of the longest frame; a longer one is refused by its sender, and is an error of the peer where it arrives."""

_PREFIX = 4
_encoder = msgspec.msgpack.Encoder()

Received = TypeVar("Received")


def encode(message: msgspec.Struct) -> bytes:
    """Returns a message as a frame.

    Raises:
        ValueError: If it is longer than `MAX_FRAME_BYTES`.
    """
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {len(body)} bytes is longer than {MAX_FRAME_BYTES}")
    return len(body).to_bytes(_PREFIX, "big") + body


class Channel(Generic[Received]):
    """One end of the connection between a provider and its engine process.

    Writing never blocks the caller: what the socket does not take at once is written by another thread. Reading is
    iteration, in one thread.

    Args:
        connection: The connected socket; the channel closes it.
        received: The union of the message types that the other side sends.
    """

    def __init__(self, connection: socket.socket, received: Any) -> None:
        self._socket = connection
        self._decoder = msgspec.msgpack.Decoder(received)
        self._urgent: deque[bytes] = deque()
        self._frames: deque[bytes] = deque()
        self._work = threading.Condition()
        self._closed = False
        self._writing = False
        """True while the thread is writing what it has taken."""
        self._is_reading = False
        """True while the iteration waits for bytes of the other side."""
        threading.Thread(target=self._write, name="engine-writer", daemon=True).start()

    def send(self, frame: bytes, urgent: bool = False) -> None:
        """Hands over a frame to be written; an urgent one is written before all that wait."""
        with self._work:
            if not (self._urgent or self._frames or self._writing or self._closed):
                # Waking the thread for every frame would cost the caller more than writing it.
                written = self._write_some(frame)
                if written == len(frame):
                    return
                frame = frame[written:]
                urgent = urgent or written > 0  # nothing may come between the parts of a frame
            (self._urgent if urgent else self._frames).append(frame)
            self._work.notify()

    def __iter__(self) -> Iterator[Received]:
        """Yields the messages of the other side, until the connection ends.

        Raises:
            ValueError: For a frame that is too long or not understood.
        """
        with contextlib.suppress(OSError), self._socket.makefile("rb") as stream:
            self._is_reading = True
            while len(prefix := stream.read(_PREFIX)) == _PREFIX:
                length = int.from_bytes(prefix, "big")
                if length > MAX_FRAME_BYTES:
                    raise ValueError(f"a frame of {length} bytes is longer than {MAX_FRAME_BYTES}")
                body = stream.read(length)
                if len(body) < length:
                    return
                self._is_reading = False
                yield self._decoder.decode(body)
                self._is_reading = True

    @property
    def is_drained(self) -> bool:
        """True while all that the other side has sent has been taken: a silence is then its own."""
        if not self._is_reading:
            return False
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLIN)
        except ValueError:  # closed
            return True
        return not poll.poll(0)

    def close(self) -> None:
        """Ends the connection for both sides; what was not written is lost."""
        with self._work:
            self._closed = True
            self._work.notify()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Closes this process's copy of the socket, which ends the connection only with the last copy."""
        self._closed = True
        self._socket.close()

    def _write_some(self, frame: bytes) -> int:
        """Writes as much of a frame as the socket takes without waiting; returns the number of bytes."""
        try:
            return self._socket.send(frame, socket.MSG_DONTWAIT)
        except OSError:  # full, or closed, which the thread will notice
            return 0

    def _write(self) -> None:
        while True:
            with self._work:
                self._writing = False
                self._work.wait_for(lambda: self._urgent or self._frames or self._closed)
                if self._closed:
                    return
                waiting = b"".join((*self._urgent, *self._frames))
                self._urgent.clear()
                self._frames.clear()
                self._writing = True
            try:
                self._socket.sendall(waiting)
            except OSError:  # the reader sees the end of the connection too
                return
