"""The case book of the local model: `tests/cases/local/*.yaml`, each through the provider and the worker's own code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.cases.local.runner")

from tests.cases.local import in_process_engine, runner  # noqa: E402 - its assertions are to be explained

CASES = runner.read_cases()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[runner.Models]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_process_engine.use(monkeypatch)
        models = runner.Models(tmp_path_factory.mktemp("models"))
        yield models
        models.close()


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, models: runner.Models) -> None:
    runner.run(CASES[name], models)
