"""The table of what each provider does is full, and the page on it says what the run has shown."""

import pytest

from tests.behaviour.conftest import PROVIDERS
from tests.behaviour.faults import FAULTS, OWN_FAULTS
from tests.behaviour.features import FEATURES
from tests.behaviour.ways import WAYS


def test_the_table_is_full_and_the_page_shows_it(request, table, repository):
    shown = [item for item in request.session.items if item.path.name in ("test_features.py", "test_faults.py")]
    cells = len(PROVIDERS) * len([*FEATURES, *FAULTS, *OWN_FAULTS])
    if len(shown) != cells * len(WAYS):
        pytest.skip("only a part of the table was asked for")
    assert table.holes() == []
    page = (repository / "docs/behaviour.md").read_text()
    begin, end = "<!-- table: begin -->\n", "\n<!-- table: end -->"
    assert page[page.index(begin) + len(begin) : page.index(end)].splitlines() == list(table.lines())
