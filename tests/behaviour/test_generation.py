"""The exact answers of an LLM that counts its own tokens, whichever way it is asked."""

import asyncio

import pytest

from tests.behaviour.ways import TWINS, WAYS
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

PARIS = "What is the capital of France?"


@pytest.fixture(params=["scripted", "huggingface"])
def subject(request, subjects):
    """An LLM that does as it is asked, not as our server plays it."""
    chosen = subjects[request.param]
    if request.param == "scripted":
        chosen.llm._script = None
    return chosen


@pytest.fixture(params=[*WAYS, TWINS])
def way(request):
    return request.param


@pytest.fixture
def provider(subject):
    """The LLM itself, to look at its counters."""
    return subject.llm


async def test_the_answer_says_where_it_comes_from_and_what_it_took(llm, provider):
    answer = await llm.complete(PARIS, temperature=0)
    assert (answer.llm, answer.provider, answer.model) == (provider.name, provider.provider, provider.config.model)
    assert answer.usage.input_tokens == await llm.ask("count_tokens", PARIS)
    assert answer.usage.output_tokens > 0
    assert answer.id
    assert 0 <= answer.timing.first_token <= answer.timing.total
    assert [(attempt.llm, attempt.error_reason) for attempt in answer.attempts] == [(provider.name, "")]


async def test_a_system_prompt_counts_as_input(llm):
    assert await llm.ask("count_tokens", PARIS, "Answer in JSON.") > await llm.ask("count_tokens", PARIS)


async def test_max_tokens_ends_the_answer(llm):
    answer = await llm.complete(PARIS, temperature=0, max_tokens=2)
    assert answer.usage.output_tokens == 2
    assert answer.finish_reason == llm.package.FinishReason.MAX_TOKENS
    assert (await llm.generate(PARIS, temperature=0)).startswith(answer.text)


async def test_a_stop_sequence_ends_the_answer_before_it(llm):
    whole = await llm.generate(PARIS, temperature=0)
    answer = await llm.complete(PARIS, temperature=0, stop=["zzz", "Fra"])
    assert answer.text == whole[: whole.index("Fra")]
    assert answer.finish_reason == llm.package.FinishReason.STOP_SEQUENCE
    assert answer.stop_sequence == "Fra"


async def test_a_seed_gives_the_same_text_again(llm):
    answers = {await llm.generate(PARIS, temperature=1.5, seed=7) for _ in range(3)}
    assert len(answers) == 1


async def test_unicode_survives_the_way(llm):
    text = "ä\u0301 🜁 \u202eabc\u0000 مرحبا 漢字"
    assert await llm.ask("count_tokens", text) > 0
    assert isinstance(await llm.generate(text, temperature=0, max_tokens=8), str)


@pytest.mark.parametrize(
    ("arguments", "error", "field"),
    [
        ({"prompt": ""}, "InvalidRequestError", "prompt"),
        ({"prompt": []}, "InvalidRequestError", "prompt"),
        ({"temperature": 3}, "InvalidRequestError", "parameters.temperature"),
        ({"temperature": float("nan")}, "InvalidRequestError", "parameters.temperature"),
        ({"max_tokens": -1}, "InvalidRequestError", "parameters.max_tokens"),
        ({"top_p": 0}, "InvalidRequestError", "parameters.top_p"),
        ({"stop": [""]}, "InvalidRequestError", "parameters.stop[0]"),
        ({"model": "another"}, "ModelNotFoundError", "parameters.model"),
        ({"num_beams": 5}, "UnsupportedParameterError", "parameters.num_beams"),
        ({"max_tokens": 5, "max_new_tokens": 6}, "InvalidRequestError", "parameters.max_new_tokens"),
        ({"provider_options": {"colour": "red"}}, "UnsupportedParameterError", "provider_options.colour"),
        ({"prompt": "\ud800"}, "InvalidRequestError", "prompt"),
    ],
)
async def test_a_bad_request_is_refused_by_field_and_the_next_is_answered(llm, arguments, error, field):
    with pytest.raises(getattr(llm.package, error)) as caught:
        await llm.complete(**({"prompt": PARIS, "max_tokens": 4} | arguments))
    assert caught.value.field == field
    assert not caught.value.retryable
    assert await llm.generate(PARIS, max_tokens=4, temperature=0)


async def test_a_deadline_ends_the_request(llm, provider):
    slow = {"provider_options": {"delay": 5}} if provider.provider == "scripted" else {}
    timeout = 0.3 if slow else 0.001
    with pytest.raises(llm.package.GenerationTimeoutError):
        await llm.complete("Tell me a story.", timeout=timeout, **slow)
    await until(lambda: provider.running == 0)


async def test_many_requests_at_once_each_get_their_own_answer(llm):
    prompts = [f"What is {n} + 1?" for n in range(8)]
    alone = [await llm.generate(prompt, temperature=0) for prompt in prompts]
    together = await asyncio.gather(*(llm.generate(prompt, temperature=0) for prompt in prompts))
    assert list(together) == alone


async def test_the_configuration_can_be_read_and_changed(llm, provider):
    before = await llm.ask("get_config")
    assert before["model"] == provider.config.model
    changed = await llm.ask("set_config", {"max_tokens": 2})
    assert changed == before | {"max_tokens": 2}
    assert (await llm.complete(PARIS, temperature=0)).usage.output_tokens == 2
    assert await llm.ask("set_config", {"max_tokens": None}) == before
