"""Every behaviour in every language: the same calls, the same observations, and the server saw the same."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.interop.languages import LANGUAGES
from tests.interop.matching import differences
from tests.interop.runner import Runner
from tests.interop.servers import HANG, World

HERE = Path(__file__).resolve().parent
BEHAVIOURS = sorted(path.parent.name for path in HERE.glob("*/case.json"))

pytestmark = pytest.mark.timeout(600)  # the first one of a language builds its runner


def checks(behaviour: str) -> Any:
    """The behaviour's `check.py`, where it has one: `prepare(world)` and `check(world, observed)`."""
    if not (HERE / behaviour / "check.py").exists():
        return None
    return importlib.import_module(f"tests.interop.{behaviour}.check")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_behaviour(
    behaviour: str,
    language: str,
    world: World,
    runner_of: Callable[[str], Runner],
    record_property: Callable[[str, object], None],
) -> None:
    record_property("interop", (behaviour, language))
    runner = runner_of(language)
    assert (HERE / behaviour / LANGUAGES[language].file).exists(), f"a hole: {behaviour} in {language}"
    case = json.loads((HERE / behaviour / "case.json").read_text("utf-8"))
    checked = checks(behaviour)
    if hasattr(checked, "prepare"):
        checked.prepare(world)

    def answer(question: dict[str, Any]) -> Any:
        match question["do"]:
            case "restart":
                world.run(world.restart(question["seconds"]))
                return True
            case do:
                return getattr(checked, do)(world, question)

    observed = runner.run({"behaviour": behaviour, "input": case["input"], "servers": world.addresses}, answer)
    unequal = list(differences(observed, case["expected"]))
    assert not unequal, "\n".join(unequal)
    if hasattr(checked, "check"):
        checked.check(world, observed)
    wait_until_idle(world)


def wait_until_idle(world: World) -> None:
    """Waits until no request is left on any LLM."""
    end = time.monotonic() + HANG
    llms = (world.echo, world.mirror, world.flaky, world.local)
    while any(llm.running or llm.queued for llm in llms):
        assert time.monotonic() < end, "requests are left on the server"
        time.sleep(0.01)


def test_the_behaviours_are_those_that_were_promised() -> None:
    assert len(BEHAVIOURS) >= 20
    for behaviour in BEHAVIOURS:
        assert set(json.loads((HERE / behaviour / "case.json").read_text("utf-8"))) == {"about", "input", "expected"}
