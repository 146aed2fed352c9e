"""The table of what each provider does: filled by the tests, printed at the end, and held against the page."""

from tests.behaviour.ways import WAYS


class Table:
    """Provider x behaviour.

    Args:
        providers: The columns.
        behaviours: The rows.
    """

    def __init__(self, providers, behaviours):
        self.providers, self.behaviours = tuple(providers), tuple(behaviours)
        self._cells = {}

    def note(self, provider, behaviour, way, result):
        """Notes how one test ended.

        Raises:
            AssertionError: If another way gave something else.
        """
        cell = self._cells.setdefault((behaviour, provider), {})
        cell[way] = result
        assert len(set(cell.values())) == 1, f"{provider} x {behaviour} depends on the way: {cell}"

    @property
    def is_begun(self):
        return bool(self._cells)

    def holes(self):
        """The cells that not every way has filled."""
        places = [(behaviour, provider) for behaviour in self.behaviours for provider in self.providers]
        return [place for place in places if len(self._cells.get(place, ())) != len(WAYS)]

    def lines(self):
        """The table, as the lines of a page."""
        yield "| | " + " | ".join(f"`{provider}`" for provider in self.providers) + " |"
        yield "|---" * (len(self.providers) + 1) + "|"
        for behaviour in self.behaviours:
            cells = [self._cell(behaviour, provider) for provider in self.providers]
            yield f"| {behaviour} | " + " | ".join(cells) + " |"

    def _cell(self, behaviour, provider):
        outcomes = self._cells.get((behaviour, provider), {})
        return next(iter(outcomes.values()), "") if len(outcomes) == len(WAYS) else "HOLE"
