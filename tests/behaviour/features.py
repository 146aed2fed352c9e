"""The behaviours of every LLM: one function each, which asks the LLM and says what must hold or be refused by name."""

import asyncio
import base64
import contextlib
import json
from dataclasses import dataclass

import pytest

PARIS = "What is the capital of France?"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
)


@dataclass(frozen=True)
class Feature:
    """One behaviour.

    Attributes:
        show: Asks, and checks what comes.
        needs: The capability, or `parameters.NAME`, without which it is refused.
        field: What the refusal names.
    """

    show: object
    needs: str = "streaming"
    field: str = ""


FEATURES = {}


def feature(name, needs="streaming", field=""):
    def register(show):
        FEATURES[name] = Feature(show, needs, field or needs)
        return show

    return register


def _steady(subject):
    """Parameters under which a real model says the same again."""
    return {} if subject.can_be_told else {"temperature": 0}


def _text_of(llm, events):
    return "".join(event.text for event in events if isinstance(event, llm.package.TextDelta))


@feature("text")
async def text(llm, subject):
    subject.play("text")
    answer = await llm.complete(PARIS, **_steady(subject))
    assert "France" in answer.text
    assert answer.message.text == answer.text
    assert answer.message.role == llm.package.Role.ASSISTANT
    assert answer.finish_reason == llm.package.FinishReason.STOP
    assert await llm.generate(PARIS, **_steady(subject)) == answer.text
    answering = subject.answering
    assert (answer.llm, answer.provider, answer.model) == (answering.name, answering.provider, answering.config.model)
    assert [(attempt.llm, attempt.error_reason) for attempt in answer.attempts] == [(answering.name, "")]
    assert answer.id
    assert 0 <= answer.timing.first_token <= answer.timing.total


@feature("stream")
async def stream(llm, subject):
    subject.play("text")
    whole = await llm.generate(PARIS, **_steady(subject))
    events = await llm.events(PARIS, **_steady(subject))
    package = llm.package
    assert isinstance(events[0], package.Started)
    assert [isinstance(event, package.Finished) for event in events] == [False] * (len(events) - 1) + [True]
    assert _text_of(llm, events) == whole == events[-1].message.text
    assert len([event for event in events if isinstance(event, package.TextDelta)]) > 1
    assert "".join(await llm.pieces(PARIS, **_steady(subject))) == whole


@feature("system prompt", "system_prompt")
async def system_prompt(llm, subject):
    subject.play("text")
    assert await llm.generate(PARIS, "Speak like a pirate.")
    assert subject.was_sent("Speak like a pirate.")


@feature("conversation", "chat")
async def conversation(llm, subject):
    subject.play("text")
    turns = [("user", "Hello"), ("assistant", "Ahoy there"), ("user", PARIS)]
    assert await llm.generate([{"role": role, "content": content} for role, content in turns])
    assert all(subject.was_sent(content) for _, content in turns)


@feature("stop sequence", "parameters.stop")
async def stop_sequence(llm, subject):
    subject.play("stop")
    answer = await llm.complete(PARIS, stop=["zzz", "Fra"], **_steady(subject))
    assert answer.text
    assert "Fra" not in answer.text
    reasons = llm.package.FinishReason
    assert answer.finish_reason in (reasons.STOP_SEQUENCE, reasons.STOP)
    assert answer.stop_sequence == ("Fra" if answer.finish_reason == reasons.STOP_SEQUENCE else "")
    return "works" if answer.stop_sequence else "works; as STOP"


@feature("length", "parameters.max_tokens")
async def length(llm, subject):
    subject.play("length")
    answer = await llm.complete(PARIS, max_tokens=2)
    assert answer.finish_reason == llm.package.FinishReason.MAX_TOKENS
    assert answer.text


@feature("temperature", "parameters.temperature")
async def temperature(llm, subject):
    subject.play("text")
    assert await llm.generate(PARIS, temperature=0.125)
    assert subject.was_sent("0.125")


@feature("seed", "parameters.seed")
async def seed(llm, subject):
    subject.play("text")
    hot = {"temperature": 1.5} if await subject.can("parameters.temperature") else {}
    assert len({await llm.generate(PARIS, seed=31337, **hot) for _ in range(2)}) == 1
    assert subject.was_sent("31337")


def _tools(package):
    return [package.Tool("weather", "The weather in a city.", SCHEMA)]


@feature("tool call", "tools")
async def tool_call(llm, subject):
    subject.play("tool call")
    parameters = {"tools": _tools(llm.package)}
    answer = await llm.complete("What is the weather in Paris?", **parameters)
    (call,) = answer.tool_calls
    assert (call.name, json.loads(call.arguments_json)) == ("weather", {"city": "Paris"})
    assert call.id
    assert answer.finish_reason == llm.package.FinishReason.TOOL_CALLS
    events = await llm.events("What is the weather in Paris?", **parameters)
    pieces = [event for event in events if isinstance(event, llm.package.ToolCallDelta)]
    assert (pieces[0].name, {piece.index for piece in pieces}) == ("weather", {0})
    assert json.loads("".join(piece.arguments_fragment for piece in pieces)) == {"city": "Paris"}


@feature("tool result", "tools")
async def tool_result(llm, subject):
    subject.play("tool call")
    package = llm.package
    tools = _tools(package)
    answer = await llm.complete("What is the weather in Paris?", tools=tools)
    subject.play("text")
    result = package.ToolResult(answer.tool_calls[0].id, "21 degrees and sunny")
    turns = [
        package.ChatMessage(package.Role.USER, (package.Text("What is the weather in Paris?"),)),
        answer.message,
        package.ChatMessage(package.Role.TOOL, (result,)),
    ]
    assert await llm.generate(turns, tools=tools)
    assert subject.was_sent("21 degrees and sunny")


@feature("image", "image_input", "chat.messages.image")
async def image(llm, subject):
    subject.play("text")
    package = llm.package
    parts = (package.Text("What is this?"), package.Image(PIXEL, "image/png"))
    assert await llm.generate([package.ChatMessage(package.Role.USER, parts)])
    assert subject.was_sent(base64.b64encode(PIXEL).decode()) or subject.was_sent(repr(PIXEL))


async def _constrained(llm, subject, wanted, **parameters):
    subject.play("json")
    answer = await llm.complete("Name a city as JSON.", response_format=wanted, **parameters)
    assert answer.finish_reason == llm.package.FinishReason.STOP
    assert isinstance(json.loads(answer.text), dict)
    return answer


@feature("JSON object", "json_object", "response_format.json_object")
async def json_object(llm, subject):
    await _constrained(llm, subject, llm.package.JsonObjectFormat(), **_steady(subject))


@feature("JSON schema", "json_schema", "response_format.json_schema")
async def json_schema(llm, subject):
    answer = await _constrained(llm, subject, llm.package.JsonSchemaFormat(SCHEMA, "city"))
    assert isinstance(json.loads(answer.text)["city"], str)
    assert subject.was_sent("maxLength")


@feature("regex", "regex", "response_format.regex")
async def regex(llm, subject):
    subject.play("json")
    answer = await llm.complete(
        "Name a city.", response_format=llm.package.RegexFormat('\\{"city": ?"[A-Z][a-z]{1,9}"\\}')
    )
    assert json.loads(answer.text)["city"].isalpha()


@feature("grammar", "grammar", "response_format.grammar")
async def grammar(llm, subject):
    subject.play("json")
    lark = 'start: "{\\"city\\": \\"" NAME "\\"}"\nNAME: /[A-Z][a-z]{1,9}/'
    answer = await llm.complete("Name a city.", response_format=llm.package.GrammarFormat(lark))
    assert json.loads(answer.text)["city"].isalpha()


@feature("reasoning", "parameters.reasoning_effort")
async def reasoning(llm, subject):
    subject.play("reasoning")
    answer = await llm.complete(PARIS, reasoning_effort="low")
    events = await llm.events(PARIS, reasoning_effort="low")
    thought = "".join(event.text for event in events if isinstance(event, llm.package.ReasoningDelta))
    assert thought
    assert thought == answer.reasoning == "France... its capital?"
    assert thought not in answer.text
    assert _text_of(llm, events) == answer.text


@feature("log-probabilities", "parameters.top_logprobs")
async def log_probabilities(llm, subject):
    subject.play("logprobs")
    answer = await llm.complete(PARIS, top_logprobs=1, max_tokens=2)
    assert len(answer.logprobs) == 2
    assert all(one.logprob <= 0 and len(one.top) == 1 and one.token_bytes for one in answer.logprobs)
    assert "".join(one.token for one in answer.logprobs) == answer.text


@feature("usage")
async def usage(llm, subject):
    subject.play("text")
    answer = await llm.complete(PARIS, **_steady(subject))
    events = await llm.events(PARIS, **_steady(subject))
    assert answer.usage == events[-1].usage
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert answer.usage.cached_input_tokens in (None, 0, 4)
    assert answer.usage.reasoning_tokens in (None, 0, 3)


@feature("count tokens", "token_counting", "CountTokens")
async def count_tokens(llm, subject):
    subject.play("text")
    assert await llm.ask("count_tokens", PARIS) > 0


@feature("refusal")
async def refusal(llm, subject):
    if not subject.can_be_told:
        return "nothing to show: it never refuses"
    subject.play("refusal")
    answer = await llm.complete(PARIS)
    assert answer.text == "I cannot help with that."
    reasons = llm.package.FinishReason
    assert answer.finish_reason in (reasons.REFUSAL, reasons.STOP)
    return "works" if answer.finish_reason == reasons.REFUSAL else "works; as STOP"


@feature("bad value refused")
async def bad_value(llm, subject):
    subject.play("text")
    for parameters, field in (({"max_tokens": -1}, "max_tokens"), ({"temperature": 3}, "temperature")):
        with refused(llm.package.InvalidRequestError, f"parameters.{field}"):
            await llm.complete(PARIS, **parameters)
    with refused(llm.package.ModelNotFoundError, "parameters.model"):
        await llm.complete(PARIS, model="another")
    return "refused: the field"


@feature("unknown option dropped on request")
async def dropping(llm, subject):
    subject.play("text")
    with refused(llm.package.UnsupportedParameterError, "provider_options.colour"):
        await llm.complete(PARIS, provider_options={"colour": "red"})
    answer = await llm.complete(
        PARIS, provider_options={"colour": "red"}, parameters_policy="drop_unsupported", **_steady(subject)
    )
    assert answer.dropped_parameters == ("provider_options.colour",)


@feature("cancel")
async def cancel(llm, subject):
    if subject.name == "scripted":
        subject.llm._script = [{"text": "partial"}, {"delay": 60}]
    elif subject.can_be_told:
        subject.play("hang mid-answer")
    assert await llm.leave_early("Tell me a long story.")
    async with asyncio.timeout(20):
        while subject.llm.running or subject.answering.running:  # noqa: ASYNC110 - it ends in a provider
            await asyncio.sleep(0.005)
    await subject.settled()


@feature("many at once")
async def many_at_once(llm, subject):
    subject.play("text")
    answers = await asyncio.gather(*(llm.generate(PARIS, **_steady(subject)) for _ in range(8)))
    assert len(set(answers)) == 1


@feature("capabilities")
async def capabilities(llm, subject):
    subject.play("text")
    capabilities = await llm.ask("get_capabilities")
    expected = await subject.llm.get_capabilities_async()
    assert {
        name: tuple(value) if isinstance(value, list) else value for name, value in capabilities.items()
    } == expected
    assert capabilities[llm.package.ModelCapability.STREAMING] is True


@contextlib.contextmanager
def refused(kind, field):
    """Expects that the block is refused with an error of this class which names this field."""
    with pytest.raises(kind) as caught:
        yield
    error = caught.value
    assert type(error) is kind
    assert error.field == field
    assert field in error.message or field == "CountTokens"
    assert not error.retryable
