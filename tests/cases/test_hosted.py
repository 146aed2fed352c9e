"""The cases of hosted providers: each public report or documented behaviour against a scripted upstream."""

from typing import Any

import pytest

from tests.cases.hosted_cases import load_cases, run_case

CASES = list(load_cases())


@pytest.mark.parametrize(("case", "way", "form"), [pytest.param(*rest, id=name) for name, *rest in CASES])
async def test_a_case_ends_as_it_should(case: dict[str, Any], way: str, form: str):
    faults = await run_case(case, way, form)
    if faults:
        pytest.fail("\n".join([f"{case['name']} ({case['report']}):", *faults]), pytrace=False)


def test_every_case_names_its_report_and_no_two_are_called_the_same():
    names = [name for name, *_ in CASES]
    assert len(set(names)) == len(names)
    assert all(case["report"] for _, case, *_ in CASES)
