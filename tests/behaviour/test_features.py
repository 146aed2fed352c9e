"""Every LLM does what it says it can, whichever way it is asked, and refuses the rest by name."""

import asyncio

import pytest

from tests.behaviour.features import FEATURES, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")
HANG = 60.0


@pytest.mark.parametrize("name", FEATURES)
async def test_it_works_or_is_refused_by_name(name, llm, subject, way, table):
    feature = FEATURES[name]
    async with asyncio.timeout(HANG):
        if feature.needs == "streaming" or await subject.can(feature.needs):
            result = await feature.show(llm, subject) or "works"
        else:
            kind = "UnsupportedParameterError" if feature.needs.startswith("parameters.") else "UnsupportedFeatureError"
            with refused(getattr(llm.package, kind), feature.field):
                await feature.show(llm, subject)
            result = f"refused: `{feature.field}`"
    table.note(subject.name, name, way, result)
