"""The order in which prompts are read: no caller's hold up another caller's."""

from collections import Counter
from dataclasses import dataclass

import pytest

from abstractllm.providers.huggingface.worker.batching.prefill_order import PrefillOrder


@dataclass(eq=False)
class Prompt:
    caller: str
    tokens: int


def order_of() -> PrefillOrder[Prompt]:
    return PrefillOrder(lambda prompt: prompt.caller, lambda prompt: prompt.tokens)


def step(order: PrefillOrder[Prompt], prompts: list[Prompt], budget: int, decoding: list[Prompt]) -> Counter[str]:
    """Reads one step's tokens of the prompts, and takes out those that are read to their end."""
    read: Counter[str] = Counter()
    for prompt in order.sort(prompts, decoding):
        tokens = min(budget, prompt.tokens)
        if not tokens:
            break
        order.charge(prompt, tokens)
        prompt.tokens -= tokens
        budget -= tokens
        read[prompt.caller] += tokens
    prompts[:] = [prompt for prompt in prompts if prompt.tokens]
    return read


def test_callers_get_the_same_number_of_tokens_whatever_they_have_waiting() -> None:
    order = order_of()
    prompts = [Prompt("many", 3000) for _ in range(20)]
    read: Counter[str] = Counter()
    for _ in range(50):  # alone
        step(order, prompts, 512, [])
    prompts += [Prompt(f"caller {number}", 1000) for number in range(10)]
    while any(prompt.caller != "many" for prompt in prompts):
        read += step(order, prompts, 512, [])
    assert all(read[f"caller {number}"] == 1000 for number in range(10))
    assert read["many"] == pytest.approx(1000, abs=512)


def test_prompts_of_one_caller_keep_their_order() -> None:
    order = order_of()
    prompts = [Prompt("one", 10), Prompt("other", 10), Prompt("one", 10), Prompt("other", 10)]
    ordered = order.sort(prompts, [])
    assert [
        ordered.index(prompts[0]) < ordered.index(prompts[2]),
        ordered.index(prompts[1]) < ordered.index(prompts[3]),
    ]
    assert order.sort(prompts[::2], []) == prompts[::2]


def test_tokens_of_answers_count_for_their_callers_too() -> None:
    order = order_of()
    prompts = [Prompt("generating", 1000), Prompt("reading", 1000)]
    decoding = [Prompt("generating", 0) for _ in range(100)]
    read: Counter[str] = Counter()
    for _ in range(5):
        for request in decoding:
            order.charge(request, 1)
        read += step(order, prompts, 100, decoding)
    assert read["reading"] > 2 * read["generating"]
