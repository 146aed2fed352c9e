"""The queue of prompts that are to become tokens: long ones of one caller hold up none of another."""

import threading
from collections import Counter

from abstractllm.providers.huggingface.protocol.messages import Conversation, Count, Generate, Sampling, Turn
from abstractllm.providers.huggingface.worker.caller_turns import CallerTurns
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.server import Worker


def test_callers_take_turns_and_keep_their_order() -> None:
    turns: CallerTurns[tuple[str, int]] = CallerTurns(lambda item: item[0])
    for number in range(20):
        turns.put(("many", number))
    turns.put(("one", 0))
    turns.put(("two", 0))
    assert [turns.get() for _ in range(5)] == [("many", 0), ("one", 0), ("two", 0), ("many", 1), ("many", 2)]
    turns.put(("one", 1))
    assert [turns.get() for _ in range(3)] == [("many", 3), ("one", 1), ("many", 4)]
    assert [turns.get()[1] for _ in range(15)] == list(range(5, 20))
    assert turns.empty()


def test_one_thread_gets_all_that_others_put() -> None:
    turns: CallerTurns[int] = CallerTurns(lambda item: f"caller {item % 7}")
    threads = [threading.Thread(target=lambda: [turns.put(item) for item in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = Counter(turns.get() for _ in range(4000))
    assert set(taken.values()) == {4}
    assert turns.empty()


def test_prompts_of_an_engine_become_tokens_in_turns() -> None:
    worker = Worker(None)  # type: ignore[arg-type]
    conversation = Conversation((Turn("user", "hello"),))
    for number in range(10):
        worker._to_tokenize.put(EngineRequest(Generate(number, conversation, Sampling(), caller="many")))
    worker._to_tokenize.put(Count(10, conversation))
    worker._to_tokenize.put(EngineRequest(Generate(11, conversation, Sampling(), caller="one")))
    items = [worker._to_tokenize.get() for _ in range(4)]
    assert [item.id if isinstance(item, Count) else item.message.id for item in items] == [0, 10, 11, 1]
