"""LLMs that are to be loaded at the start, and cannot be at first."""

import asyncio
from collections.abc import Sequence

import pytest

from abstractllm.errors import AbstractLLMError, ModelLoadError, ProviderCredentialsError, ProviderUnavailableError
from abstractllm.registry import LLMRegistry
from abstractllm.testing import ScriptedProvider
from abstractllm.types import LlmState
from abstractllm_server.lifecycle import background_loads
from abstractllm_server.lifecycle.reload import ConfigurationReloader
from abstractllm_server.lifecycle.service_manager import ServiceManager
from abstractllm_server.settings import ServerSettings
from tests.server.support import serving
from tests.waiting import until


class Failing(ScriptedProvider):
    """One whose first loads fail."""

    errors: list[Exception]
    attempts = 0

    async def load(self) -> None:
        self.attempts += 1
        if self.errors:
            self._become(LlmState.FAILED, "it failed")
            raise self.errors.pop(0)
        self._become(LlmState.READY, "")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_loads, "_FIRST_PAUSE", 0.01)


def failing(*errors: Exception) -> Failing:
    llm = Failing()
    llm.errors = list(errors)
    return llm


async def test_it_is_tried_again_until_it_is_loaded_without_any_request() -> None:
    llm = failing(ProviderUnavailableError("the hub is down"), ModelLoadError("no memory"), RuntimeError("of its own"))
    async with serving({"local": llm}) as served:
        await until(lambda: llm.attempts == 4)
        await asyncio.sleep(0.1)
        assert (llm.attempts, llm.state[0]) == (4, LlmState.READY)
        await served.works()


@pytest.mark.parametrize("error", [ProviderCredentialsError("no key")])
async def test_what_does_not_mend_by_itself_is_not_tried_again(error: AbstractLLMError) -> None:
    llm = failing(error, error)
    async with serving({"local": llm}):
        await until(lambda: llm.attempts == 1)
        await asyncio.sleep(0.1)
        assert llm.attempts == 1


async def test_one_that_was_unloaded_or_removed_meanwhile_is_left_alone() -> None:
    unloaded, removed = (failing(*[ModelLoadError("broken")] * 1000) for _ in range(2))
    llms = {"unloaded": unloaded, "removed": removed, "stays": ScriptedProvider()}
    async with serving(llms, preload=("unloaded", "removed")) as served:
        await until(lambda: unloaded.attempts > 1 and removed.attempts > 1)
        unloaded._become(LlmState.UNLOADED, "")
        await served.registry.apply({"stays": {"provider": "scripted"}})
        await asyncio.sleep(0.1)
        before = (unloaded.attempts, removed.attempts)
        await asyncio.sleep(0.5)
        assert (unloaded.attempts, removed.attempts) == before


async def test_one_that_fails_later_is_tried_again_too() -> None:
    llm = failing()
    async with serving({"local": llm}):
        await until(lambda: llm.attempts == 1)
        await asyncio.sleep(0.05)
        llm.errors = [ModelLoadError("somebody else has the memory")]
        llm._become(LlmState.FAILED, "the engine crashed, and cannot be loaded again")
        await until(lambda: llm.attempts == 3)
        await asyncio.sleep(0.1)
        assert (llm.attempts, llm.state[0]) == (3, LlmState.READY)


async def test_one_that_pauses_is_tried_at_once_when_somebody_begins_its_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_loads, "_FIRST_PAUSE", 3000)
    llm = failing(*[ModelLoadError("no such folder")] * 2)
    async with serving({"local": llm}) as served:
        for attempts in (1, 2, 3):
            await until(lambda count=attempts: llm.attempts == count)  # type: ignore[misc]
            await asyncio.sleep(0.05)
            served.server.load(["local"])
        assert llm.state[0] is LlmState.READY


async def test_one_that_takes_the_name_of_one_that_pauses_is_loaded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_loads, "_FIRST_PAUSE", 3000)
    loads: list[str] = []

    async def load(llm: ScriptedProvider) -> None:
        loads.append(llm.name)

    llm = failing(*[ModelLoadError("no such folder")] * 2)
    async with serving({"local": llm}) as served:
        await until(lambda: llm.attempts == 1)
        monkeypatch.setattr(ScriptedProvider, "load", load)
        difference = await served.registry.apply({"local": {"provider": "scripted"}})
        assert difference.changed == ("local",)
        served.server.load(["local"])
        await until(lambda: loads == ["local"])


async def test_the_load_of_one_that_is_removed_meanwhile_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    begun, removed = asyncio.Event(), asyncio.Event()

    class Slow(Failing):
        async def load(self) -> None:
            begun.set()
            await removed.wait()
            raise ModelLoadError("the model is closed")

    async with serving({"local": Slow(), "stays": ScriptedProvider()}) as served:
        await begun.wait()
        await served.registry.apply({"stays": {"provider": "scripted"}})
        removed.set()
        await until(lambda: not served.server._loads._tasks)
    assert "cannot be loaded" not in caplog.text


async def test_a_reload_loads_what_has_failed_and_what_preload_names_anew_though_no_llm_has_changed() -> None:
    registry = LLMRegistry({"local": ScriptedProvider(), "other": ScriptedProvider()})
    settings = ServerSettings(llms={name: {"provider": "scripted"} for name in ("local", "other")})
    loads: list[str] = []

    def note(names: Sequence[str], wanted: Sequence[str]) -> None:
        assert set(names) <= set(wanted)
        loads.extend(names)

    reloader = ConfigurationReloader(lambda: settings, settings, registry, {}, ServiceManager(), note)
    task = asyncio.create_task(reloader.run())
    for count, state in enumerate((LlmState.READY, LlmState.FAILED), start=1):
        for llm in registry:
            llm._become(state, "")
        reloader.request()
        await until(lambda wanted=count: reloader.outcomes["success"] == wanted)  # type: ignore[misc]
    assert loads == ["local"]
    settings = settings.model_copy(update={"preload": ("other", "local")})
    for llm in registry:
        llm._become(LlmState.UNLOADED, "")
    for count in (3, 4):  # the second time nothing is new
        reloader.request()
        await until(lambda wanted=count: reloader.outcomes["success"] == wanted)  # type: ignore[misc]
    assert loads == ["local", "other"]
    task.cancel()
    await registry.close()


async def test_one_that_a_reload_takes_out_of_preload_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []

    async def load(llm: ScriptedProvider) -> None:
        attempts.append(llm.name)
        llm._become(LlmState.FAILED, "it failed")
        raise ModelLoadError("no such folder")

    monkeypatch.setattr(ScriptedProvider, "load", load)
    monkeypatch.setattr(background_loads, "_LONGEST_PAUSE", 0.05)
    before = ServerSettings(llms={"local": {"provider": "scripted"}}, preload=("local",))
    after = before.model_copy(update={"preload": ()})
    async with serving({"local": ScriptedProvider()}, preload=("local",)) as served:
        reloader = ConfigurationReloader(
            lambda: after, before, served.registry, {}, ServiceManager(), served.server.load
        )
        task = asyncio.create_task(reloader.run())
        await until(lambda: len(attempts) > 2)
        reloader.request()
        await until(lambda: reloader.outcomes["success"])
        await asyncio.sleep(0.1)
        count = len(attempts)
        await asyncio.sleep(0.5)
        assert len(attempts) == count
        task.cancel()


async def test_one_that_nobody_wants_loaded_is_left_to_its_requests() -> None:
    other = failing()
    async with serving({"local": ScriptedProvider(), "other": other}):
        other._become(LlmState.FAILED, "its request failed")
        await asyncio.sleep(0.1)
        assert other.attempts == 0
