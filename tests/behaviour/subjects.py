"""The LLMs under test: what each is told to do next, what came of it upstream, and what it says it can do."""

import dataclasses

from abstractllm import TextDelta, TokenLogprob, TopLogprob
from tests.behaviour.faults import FAULTS
from tests.behaviour.upstreams import ARGUMENTS, JSON, REFUSAL, RETRY_AFTER, TEXT, THOUGHT

CONFIG = {"max_retries": 0}


class Subject:
    """One LLM.

    Args:
        llm: The LLM itself, as the registry has it.
    """

    can_be_told = True
    """True if it can be told what to answer."""

    def __init__(self, llm):
        self.llm = llm
        self.name = llm.name
        self.answering = llm
        """The LLM that answers."""

    def play(self, scene):
        """Tells it what to answer."""

    async def can(self, ability):
        """Returns True if it says that it can honour a capability, or `parameters.NAME`."""
        return _can(await self.llm.get_capabilities_async(), ability)

    def was_sent(self, words):
        """Returns True if words of the last request reached the model."""
        return True

    async def settled(self):
        """Waits until nothing of a request is left, here or upstream."""


class Hosted(Subject):
    """An LLM of a hosted provider, whose server is ours."""

    def __init__(self, llm, upstream):
        super().__init__(llm)
        self.upstream = upstream

    def play(self, scene):
        self.upstream.play(scene)

    def was_sent(self, words):
        return words.encode() in self.upstream.sent

    async def settled(self):
        await self.upstream.server.settled(self.upstream.server.open)


class Fallback(Hosted):
    """A fallback whose first LLM plays the scenes; the second one just answers."""

    def __init__(self, llm, first, second):
        super().__init__(llm, first.upstream)
        self.members = [first, second]
        self.answering = first.llm
        self.second = second

    def play(self, scene):
        super().play(scene)
        self.second.play("text")
        for member in self.llm._members:
            member.breaker.record_success()  # what an earlier test did to it is over

    async def can(self, ability):
        return any([await member.can(ability) for member in self.members])


class Scripted(Subject):
    """The scripted LLM: its scenes are scripts, its faults the errors that they are documented to end in."""

    def play(self, scene):
        fault = FAULTS.get(scene)
        script = _fault_script(fault) if fault else _SCRIPTS[scene]
        self.llm._script = script
        self.llm.requests.clear()

    def was_sent(self, words):
        return words.encode() in repr(dataclasses.astuple(self.llm.requests[-1])).encode()


class Local(Subject):
    """The demo model, in its engine process: it says what it wants."""

    can_be_told = False


def _can(known, ability):
    kind, _, name = ability.partition(".")
    return name in known.parameters if kind == "parameters" else bool(getattr(known, ability))


_SCRIPTS = {
    "text": [{"text": "".join(TEXT)}],
    "stop": [{"text": "".join(TEXT)}],
    "length": [{"text": "".join(TEXT)}],
    "tool call": [{"tool_call": {"id": "call_1", "name": "weather", "arguments": {"city": "Paris"}}}],
    "json": [{"text": "".join(JSON)}],
    "reasoning": [{"reasoning": "".join(THOUGHT)}, {"text": "".join(TEXT)}],
    "logprobs": [
        TextDelta(
            token, (TokenLogprob(1, token, token.encode(), -0.25, (TopLogprob(1, token, token.encode(), -0.25),)),)
        )
        for token in ("Pa", "ris")
    ],
    "refusal": [{"text": REFUSAL}, {"finish": "refusal"}],
}
assert "".join(ARGUMENTS) == '{"city": "Paris"}'


def _fault_script(fault):
    began = [{"text": "partial"}] if fault.partial else []
    if fault.reason == "TIMEOUT":
        return [*began, {"delay": 60}]
    facts = {"retry_after": float(RETRY_AFTER)} if fault.retry_after else {}
    if fault.reason == "INCOMPLETE_STREAM":
        return [*began, {"break_off": True}]
    return [*began, {"error": fault.reason, **facts}]
