"""The channel between provider and engine process, and the engine's reader."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from abstractllm.providers.huggingface.protocol.channel import MAX_FRAME_BYTES, Channel, encode
from abstractllm.providers.huggingface.protocol.messages import (
    Cancel,
    Conversation,
    FromEngine,
    Generate,
    Sampling,
    ToEngine,
    Turn,
)
from abstractllm.providers.huggingface.worker import server

HELLO = Conversation((Turn("user", "hello"),))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_messages_arrive_whole_whatever_their_size(ends: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = Channel[FromEngine](ends[0], FromEngine), Channel[ToEngine](ends[1], ToEngine)
    sent = [
        Generate(number, Conversation((Turn("user", "🙂\x00" * size),)), Sampling(seed=-(2**63), logit_bias={7: -1.5}))
        for number, size in enumerate((0, 1, 5_000_000, 3))
    ]
    for message in sent:
        sender.send(encode(message))
    received = iter(receiver)
    assert [next(received) for _ in sent] == sent
    sender.close()
    assert list(received) == []
    receiver.close()


def test_urgent_frame_goes_before_those_that_wait(ends: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = Channel[FromEngine](ends[0], FromEngine), Channel[ToEngine](ends[1], ToEngine)
    sender.send(encode(Generate(0, Conversation((Turn("user", "x" * 5_000_000),)), Sampling())))  # fills the socket
    received = iter(receiver)
    for number in range(1, 4):
        sender.send(encode(Generate(number, HELLO, Sampling())))
    sender.send(encode(Cancel(3, 3)), urgent=True)
    order = [next(received) for _ in range(5)]
    assert order.index(Cancel(3, 3)) < order.index(Generate(3, HELLO, Sampling()))
    sender.close()
    receiver.close()


def test_frames_of_many_threads_arrive_whole_and_in_the_order_of_each(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    sender, receiver = Channel[FromEngine](ends[0], FromEngine), Channel[ToEngine](ends[1], ToEngine)
    frames = 200

    def send(thread: int) -> None:
        for number in range(frames):
            size = 70_000 if number % 20 == 0 else number  # every now and then more than the socket takes
            turns = (Turn("user", "x" * size),)
            sender.send(encode(Generate(thread * frames + number, Conversation(turns), Sampling())))

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    received = iter(receiver)
    messages = [next(received) for _ in range(4 * frames)]
    for thread in threads:
        thread.join(60)
    ids = [message.id for message in messages if isinstance(message, Generate)]
    assert all(
        [id for id in ids if id // frames == thread] == list(range(thread * frames, (thread + 1) * frames))
        for thread in range(4)
    )
    sender.close()
    receiver.close()


def test_sending_never_waits_for_a_reader(ends: tuple[socket.socket, socket.socket]) -> None:
    sender = Channel[FromEngine](ends[0], FromEngine)
    frame = encode(Generate(0, Conversation((Turn("user", "x" * 1_000_000),)), Sampling()))
    thread = threading.Thread(target=lambda: [sender.send(frame) for _ in range(20)])
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    sender.close()


def test_frame_over_the_limit_is_refused_on_both_sides(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Channel[ToEngine](ends[1], ToEngine)
    ends[0].sendall((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(ValueError, match="longer"):
        next(iter(receiver))
    receiver.close()
    monkeypatch.setattr("abstractllm.providers.huggingface.protocol.channel.MAX_FRAME_BYTES", 100)
    with pytest.raises(ValueError, match="longer than 100"):
        encode(Generate(0, Conversation((Turn("user", "x" * 200),)), Sampling()))


def test_frame_that_is_no_message_is_an_error(ends: tuple[socket.socket, socket.socket]) -> None:
    receiver = Channel[ToEngine](ends[1], ToEngine)
    ends[0].sendall(b"\x00\x00\x00\x05hello")
    with pytest.raises(ValueError):  # noqa: PT011
        next(iter(receiver))
    receiver.close()


def test_cancellation_that_overtakes_its_request_still_counts(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(server, "end_process", ended.append)
    seven, two = Generate(7, HELLO, Sampling()), Generate(2, HELLO, Sampling())
    for message in (Cancel(7, 1), seven, two, Cancel(2, 2), Cancel(1, 0)):
        ends[0].sendall(encode(message))
    ends[0].close()
    channel = Channel[ToEngine](ends[1], ToEngine)
    worker = server.Worker(channel)
    worker._read()
    channel.close()
    assert [worker._requests[id].cancelled for id in (7, 2)] == [True, True]
    assert worker._cancelled_early == set()
    assert ended == [0]
