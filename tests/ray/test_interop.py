"""The interop suite's Python half, with every LLM on Ray Serve: the same calls, the same observations."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_hub import FakeHub, serving_hub
from tests.interop.languages import ROOT
from tests.interop.matching import differences
from tests.interop.runner import Runner
from tests.interop.servers import HUB_MODEL
from tests.interop.test_interop import BEHAVIOURS, HERE, checks, wait_until_idle
from tests.ray.world import RayWorld

pytestmark = pytest.mark.timeout(600)

EXPECTED: dict[str, dict[tuple[str, ...], Any]] = {"models": {("local", "provider"): "ray"}}
"""The places in what is expected where the list of LLMs tells that they are on Ray Serve."""


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with serving_hub() as hub:
        hub.add(HUB_MODEL)
        yield hub


@pytest.fixture(scope="module")
def world(ray_address: str, tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[RayWorld]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hub"), "HOME": str(home)}.items():
            patch.setenv(name, value)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        world = RayWorld(tmp_path_factory.mktemp("servers"))
        world.start()
        yield world
        world.stop()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    command = [sys.executable, "-m", "tests.interop.runners.python.main"]
    runner = Runner(command, ROOT, tmp_path_factory.mktemp("python") / "log")
    yield runner
    runner.stop()


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_behaviour_on_ray(behaviour: str, world: RayWorld, runner: Runner) -> None:
    case = json.loads((Path(HERE) / behaviour / "case.json").read_text("utf-8"))
    for path, value in EXPECTED.get(behaviour, {}).items():
        place = case["expected"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    checked = checks(behaviour)
    if hasattr(checked, "prepare"):
        checked.prepare(world)

    def answer(question: dict[str, Any]) -> Any:
        if question["do"] == "restart":
            world.run(world.restart(question["seconds"]))
            return True
        return getattr(checked, question["do"])(world, question)

    observed = runner.run({"behaviour": behaviour, "input": case["input"], "servers": world.addresses}, answer)
    unequal = list(differences(observed, case["expected"]))
    assert not unequal, "\n".join(unequal)
    if hasattr(checked, "check"):
        checked.check(world, observed)
    wait_until_idle(world)
