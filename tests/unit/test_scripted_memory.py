"""The memory of the scripted LLM: it keeps the latest requests alone, however many and however big they are."""

import tracemalloc

from abstractllm.testing import ScriptedProvider

MEBIBYTE = 1 << 20


def test_the_latest_hundred_requests_are_kept_and_all_are_counted() -> None:
    with ScriptedProvider() as llm:
        for number in range(250):
            llm.generate(f"say {number}")
        assert [request.prompt for request in llm.requests] == [f"say {number}" for number in range(150, 250)]
        assert (llm.answered, llm.released) == (250, 250)


def test_big_requests_are_not_kept_beyond_four_mebibytes() -> None:
    with ScriptedProvider({"reply": "yes"}) as llm:
        llm.generate("warm")
        tracemalloc.start()
        try:
            for number in range(20):
                llm.generate("x" * MEBIBYTE + str(number))
                llm.generate("hello", provider_options={"reply": "y" * MEBIBYTE})
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert 1 <= len(llm.requests) <= 4
        assert kept < 8 * MEBIBYTE
        assert llm.answered == 41


def test_a_request_larger_than_the_bound_leaves_none_behind() -> None:
    with ScriptedProvider({"reply": "yes"}) as llm:
        llm.generate("x" * 5 * MEBIBYTE)
        assert llm.requests == []
        llm.generate("small")
        assert [request.prompt for request in llm.requests] == ["small"]


def test_a_cleared_list_is_filled_again() -> None:
    with ScriptedProvider() as llm:
        for _ in range(3):
            llm.generate("before")
        llm.requests.clear()
        llm.generate("after")
        assert [request.prompt for request in llm.requests] == ["after"]
