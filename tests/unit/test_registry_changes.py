"""A registry that takes a new configuration over: LLMs added, changed and removed, or nothing at all."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from abstractllm.errors import ConfigurationError, ModelLoadError, ServerShuttingDownError, UnknownLLMError
from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.registry import Difference, LLMRegistry, registry
from abstractllm.requests import GenerationRequest, make_request
from abstractllm.testing import ScriptedConfig, ScriptedProvider
from tests.unit import stand_in_engine
from tests.waiting import until

A, B, C = ({"provider": "scripted", "reply": reply} for reply in "abc")
HOSTED = {"provider": "openai", "api_key": "k", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
SLOW = [{"text": "begun"}, {"delay": 0.3}, {"text": " done"}]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_LOOK_AGAIN", 0.02)


def made(**llms: Any) -> LLMRegistry:
    return LLMRegistry.from_config(llms)


async def answer(llms: LLMRegistry, name: str = "") -> str:
    return await llms[name].generate_async("x")


async def test_llms_are_added_changed_and_removed_and_the_others_stay() -> None:
    llms = made(a=A, b=B, c=C)
    stays, changes = llms["a"], llms["b"]
    changed: list[int] = []
    llms.on_change(lambda: changed.append(len(llms)))
    difference = await llms.apply({"d": A, "b": B | {"reply": "new"}, "a": A}, "b")
    assert difference == Difference(added=("d",), changed=("b",), removed=("c",))
    assert str(difference) == "added d, changed b, removed c"
    assert changed == [3]
    assert [llm.name for llm in llms] == ["d", "b", "a"]
    assert [info.is_default for info in llms.list()] == [False, True, False]
    assert (llms["a"], llms["b"]) == (stays, changes)
    assert [await answer(llms, name) for name in ("", "a", "d")] == ["new", "a", "a"]
    with pytest.raises(UnknownLLMError):
        llms["c"]
    await llms.close()


async def test_same_configuration_changes_nothing_but_what_was_set_since() -> None:
    llms = made(a=A, b=B)
    before = list(llms)
    assert await llms.apply({"a": A, "b": B}) == Difference()
    await llms["b"].set_config_async(reply="set since")
    assert llms.configured("b").reply == "b"  # type: ignore[attr-defined]
    assert await llms.apply({"a": A, "b": B}) == Difference(changed=("b",))
    assert await answer(llms, "b") == "b"
    assert list(llms) == before
    await llms.close()


async def test_running_requests_keep_their_llm_and_its_configuration() -> None:
    llms = made(kept=A, changed=A | {"script": SLOW}, removed=A | {"script": SLOW})
    removed = llms["removed"]
    streams = [llms[name].stream_async("x") for name in ("changed", "removed")]
    for stream in streams:
        await anext(stream), await anext(stream)
    await llms.apply({"kept": A, "changed": A | {"reply": "other"}})
    texts = ["".join([getattr(event, "text", "") async for event in stream]) for stream in streams]
    assert texts == [" done", " done"]
    assert await answer(llms, "changed") == "other"
    await until(lambda: not llms._leaving)
    assert removed not in list(llms)
    await llms.close()


class CountingSlowly(ScriptedProvider):
    """An LLM that takes its time to count, and fails if it is closed meanwhile."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._closed = False

    async def count(self, request: GenerationRequest, config: ScriptedConfig) -> int:
        await asyncio.sleep(0.3)
        if self._closed:
            raise ServerShuttingDownError("closed")
        return await super().count(request, config)

    async def close_async(self) -> None:
        self._closed = True


class Closing(ScriptedProvider):
    provider = "closing"
    closed = 0

    async def close_async(self) -> None:
        self.closed += 1


async def test_removed_llm_is_closed_once_it_has_answered_or_with_the_registry() -> None:
    scripts = {"ended": SLOW, "endless": [{"text": "begun"}, {"delay": 3000}]}
    leaving = {name: Closing({"script": script}) for name, script in scripts.items()}
    llms = LLMRegistry({"kept": ScriptedProvider(), **leaving})
    streams = [llm.stream_async("x") for llm in leaving.values()]
    for stream in streams:
        await anext(stream), await anext(stream)
    await llms.apply({"kept": A})
    assert [llm.closed for llm in leaving.values()] == [0, 0]
    async with aclosing(streams[0]) as rest:
        assert [event async for event in rest]
    await until(lambda: leaving["ended"].closed)
    await asyncio.sleep(0.1)
    assert [llm.closed for llm in leaving.values()] == [1, 0]
    await llms.close()
    assert [llm.closed for llm in leaving.values()] == [1, 1]
    await streams[1].aclose()


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an unknown key": ({"a": A, "new": A | {"nonsense": 1}}, {}, "llms.new"),
    "an unknown provider": ({"a": {"provider": "none"}}, {}, "llms.a"),
    "no LLM": ({}, {}, "llms"),
    "a default that is not there": ({"a": A}, {"default": "b"}, "default"),
    "a limit that is none": ({"a": A}, {"max_loaded": 0}, "max_loaded"),
    "a circle": ({"a": {"provider": "fallback", "llms": ["a"]}}, {}, "llms.a"),
}


@pytest.mark.parametrize("kind", FAULTS)
async def test_any_fault_changes_nothing(kind: str) -> None:
    llms = LLMRegistry.from_config({"a": A, "b": B}, "b", max_loaded=3)
    before = list(llms)
    lines, options, field = FAULTS[kind]
    with pytest.raises(ConfigurationError) as caught:
        await llms.apply(lines, **options)
    assert caught.value.field is not None
    assert caught.value.field.startswith(field)
    assert (list(llms), llms.default, llms._memory.max_loaded) == (before, "b", 3)
    assert [await answer(llms, name) for name in "ab"] == ["a", "b"]
    await llms.close()


def fallback(*names: str, **keys: Any) -> dict[str, Any]:
    return {"provider": "fallback", "llms": list(names)} | keys


async def test_fallback_follows_its_llms() -> None:
    llms = made(a=A, b=B, best=fallback("a", "b"))
    best, a = llms["best"], llms["a"]
    # Its LLMs stay, though one is changed: it stays, too.
    await llms.apply({"a": A | {"reply": "changed"}, "b": B, "best": fallback("a", "b", strategy="round_robin")})
    assert llms["best"] is best
    assert llms["best"].get_config()["strategy"] == "round_robin"  # type: ignore[typeddict-item]
    # One of them is made anew: so is it, with the new one.
    difference = await llms.apply({"a": HOSTED, "b": B, "best": fallback("a", "b"), "over": fallback("best")})
    assert difference == Difference(added=("over",), changed=("a", "best"))
    assert llms["best"] is not best
    assert [*map(id, llms["best"].members)] == [id(llms["a"]), id(llms["b"])]
    assert [*map(id, llms["over"].members)] == [id(llms["best"])]
    # Those that left are told of nothing any more.
    await until(lambda: not llms._leaving)
    assert best not in [getattr(listener, "__self__", None) for listener in llms["b"]._listeners]
    assert a not in list(llms)
    await llms.close()


async def test_fallback_that_does_not_come_into_force_listens_to_nobody() -> None:
    llms = made(a=A, b=B, best=fallback("a", "b"))
    before = len(llms["a"]._listeners)

    async def fail() -> None:
        raise ConfigurationError("the certificate cannot be read")

    for _ in range(3):
        with pytest.raises(ConfigurationError):
            await llms.apply({"a": A, "b": HOSTED, "best": fallback("a", "b")}, prepare_others=fail)
    assert len(llms["a"]._listeners) == before
    await llms.close()


async def test_removed_llm_counts_the_tokens_that_it_was_asked_for() -> None:
    slow = CountingSlowly()
    llms = LLMRegistry({"a": ScriptedProvider({"reply": "a"}), "slow": slow})
    count = asyncio.create_task(slow.run_count(make_request("one two")))
    await asyncio.sleep(0)
    await llms.apply({"a": A})
    assert await count == 2
    await until(lambda: not llms._leaving)
    assert slow.running == 0
    await llms.close()


async def test_what_an_llm_asks_for_itself_while_it_waits_leaves_no_number_below_zero() -> None:
    llms = made(a=A)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(llms["a"]), "queued", 2)
        (info,) = llms.list()
    assert (info.running, info.queued) == (0, 2)
    await llms.close()


async def test_fallback_that_was_removed_still_asks_its_llms() -> None:
    failing = {"provider": "scripted", "script": [{"delay": 0.3}, {"error": "PROVIDER_UNAVAILABLE"}]}
    llms = made(a=A, failing=failing, good=B, best=fallback("failing", "good", max_retries=0))
    request = asyncio.create_task(answer(llms, "best"))
    await until(lambda: llms["failing"].running)
    await llms.apply({"a": A})
    assert await request == "b"
    await until(lambda: not llms._leaving)
    await llms.close()


async def test_what_else_changes_comes_into_force_with_the_llms_or_not_at_all() -> None:
    llms = made(a=A)
    steps: list[object] = []

    async def prepare() -> Any:
        steps.append([llm.name for llm in llms])
        return lambda: steps.append([llm.name for llm in llms])

    async def refuse() -> Any:
        raise ConfigurationError("refused")

    with pytest.raises(ConfigurationError, match="refused"):
        await llms.apply({"a": A, "b": B}, prepare_others=refuse)
    assert [llm.name for llm in llms] == ["a"]
    await llms.apply({"a": A, "b": B}, prepare_others=prepare)
    assert steps == [["a"], ["a", "b"]]
    await llms.close()


async def test_who_changes_a_configuration_and_a_new_one_take_turns() -> None:
    llms = made(a=A, b=B)
    async with llms.changing("a") as llm:
        applying = asyncio.create_task(llms.apply({"a": A | {"reply": "new"}, "b": B}))
        await asyncio.sleep(0.05)
        assert not applying.done()
        await llm.set_config_async(reply="set")
    assert (await applying).changed == ("a",)
    assert await answer(llms, "a") == "new"
    await llms.close()


# Local models, whose engines are stand-ins that start in a moment.


def local(model: object, **keys: Any) -> dict[str, Any]:
    return {"provider": "huggingface", "model": str(model), "threads": 1} | keys


def loaded(llm: AbstractLLMInterface[Any]) -> list[str]:
    assert isinstance(llm, HuggingFaceProvider)
    return sorted(load.model.rpartition("/")[2] for load in llm.models_in_use)


async def test_loaded_model_is_replaced_by_a_loaded_one(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_engine.use(monkeypatch)
    llms = made(a=local(tmp_path / "old"), b=A)
    await llms["a"].load()
    await llms.apply({"a": local(tmp_path / "new"), "b": A})
    assert llms["a"].state[0] == "ready"
    await until(lambda: loaded(llms["a"]) == ["new"])
    await llms.close()


@pytest.mark.parametrize("limits", [{}, {"max_loaded": 1}], ids=["beside", "after"])
async def test_model_that_cannot_be_loaded_changes_nothing_of_any_llm(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]
) -> None:
    stand_in_engine.use(monkeypatch)
    llms = LLMRegistry.from_config({"a": local(tmp_path / "old"), "b": A}, **limits)
    await llms["a"].load()
    with pytest.raises(ModelLoadError, match="broken"):
        await llms.apply({"a": local(tmp_path / "broken"), "b": A | {"reply": "new"}, "c": A}, **limits)
    assert [llm.name for llm in llms] == ["a", "b"]
    assert await answer(llms, "b") == "a"
    assert llms["a"].config.model == str(tmp_path / "old")
    await llms["a"].load()
    await until(lambda: loaded(llms["a"]) == ["old"])
    await llms.close()


async def test_model_that_does_not_fit_beside_the_old_one_comes_after_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_engine.use(monkeypatch)
    llms = LLMRegistry.from_config({"a": local(tmp_path / "old")}, max_loaded=1)
    await llms["a"].load()
    await llms.apply({"a": local(tmp_path / "new")}, max_loaded=1)
    assert (llms["a"].state[0], loaded(llms["a"])) == ("ready", ["new"])
    await llms.close()


async def test_limits_of_memory_change_and_idle_models_beyond_them_are_unloaded(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_engine.use(monkeypatch)
    lines = {name: local(tmp_path / name) for name in "ab"}
    llms = LLMRegistry.from_config(lines)
    for llm in llms:
        await llm.load()
    await llms.apply(lines, max_loaded=1)
    await until(lambda: [llm.state[0] for llm in llms] == ["unloaded", "ready"])
    await llms.apply(lines)
    await llms["a"].load()
    assert [llm.state[0] for llm in llms] == ["ready", "ready"]
    await llms.close()
