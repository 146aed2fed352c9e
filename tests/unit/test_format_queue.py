"""The queue of formats to be compiled: each one once, callers in turns, nothing for those who have left."""

from __future__ import annotations

import threading

from abstractllm.providers.huggingface.worker.structured.format_queue import FormatQueue


def key(text: str) -> bytes:
    return text.encode()


def take(queue: FormatQueue[str], count: int) -> list[str]:
    """The formats in the order in which one thread compiles them."""
    order = []
    for _ in range(count):
        job = queue.take()
        order.append(job.key.decode())
        queue.finish(job)
    return order


def test_callers_take_turns_however_many_formats_one_of_them_sends() -> None:
    queue: FormatQueue[str] = FormatQueue()
    for index in range(70):
        queue.add(f"request {index}", key(f"heavy {index}"), "greedy")
    queue.add("other", key("light"), "modest")
    queue.add("third", key("small"), "third")
    assert take(queue, 4) == ["heavy 0", "light", "small", "heavy 1"]


def test_a_caller_has_one_format_compiled_at_a_time_and_leaves_the_other_threads_free() -> None:
    queue: FormatQueue[str] = FormatQueue()
    queue.add("a", key("heavy"), "greedy")
    queue.add("b", key("heavier"), "greedy")
    running = queue.take()
    queue.add("c", key("light"), "modest")
    other = queue.take()
    assert (running.key, other.key) == (b"heavy", b"light")
    taken: list[bytes] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take().key), daemon=True)
    thread.start()
    queue.finish(other)
    assert taken == []  # although a thread is free
    queue.finish(running)
    thread.join(10)
    assert taken == [b"heavier"]


def test_the_same_format_of_many_is_compiled_once_and_all_are_served() -> None:
    queue: FormatQueue[int] = FormatQueue()
    for index in range(50):
        queue.add(index, key("same"), f"caller {index % 5}")
    job = queue.take()
    queue.add(50, key("same"), "late")
    assert queue.finish(job) == [*range(51)]
    assert len(queue) == 0


def test_a_format_that_waits_behind_a_greedy_caller_comes_with_the_turn_of_another_who_wants_it() -> None:
    queue: FormatQueue[str] = FormatQueue()
    for text in ("heavy 0", "heavy 1", "shared", "heavy 2"):
        queue.add(text, key(text), "greedy")
    queue.add("mine", key("shared"), "modest")
    assert take(queue, 4) == ["heavy 0", "shared", "heavy 1", "heavy 2"]


def test_a_format_that_nobody_waits_for_any_more_is_dropped() -> None:
    queue: FormatQueue[str] = FormatQueue()
    for text in ("a", "b", "c"):
        queue.add(text, key(text), "one")
    queue.add("again", key("b"), "two")
    assert queue.discard("a", key("a"))
    assert queue.discard("b", key("b"))  # another request still waits for it
    assert not queue.discard("b", key("b"))
    assert not queue.discard("x", key("x"))
    assert sorted(take(queue, 2)) == ["b", "c"]
    assert len(queue) == 0


def test_a_request_that_leaves_while_its_format_is_compiled_is_not_served() -> None:
    queue: FormatQueue[str] = FormatQueue()
    queue.add("stays", key("a"), "one")
    queue.add("leaves", key("a"), "one")
    job = queue.take()
    assert queue.discard("leaves", key("a"))
    assert queue.finish(job) == ["stays"]
