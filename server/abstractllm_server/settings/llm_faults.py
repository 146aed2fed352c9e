"""The faults of all LLMs of a configuration, found by making the LLMs: their keys are their providers' to check."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from abstractllm.errors import ConfigurationError
from abstractllm.registry import LLMRegistry

__all__ = ["MOST_FAULTS", "llm_faults"]

MOST_FAULTS = 50
"""Faults that are told at a time."""
_HARMLESS = {"provider": "scripted"}
_STEP = re.compile(r"\.?([^.[\]]+)|\[(\d+)\]")


def llm_faults(lines: Mapping[str, Any]) -> list[ConfigurationError]:
    """Returns what is wrong with the LLMs of a configuration, at most `MOST_FAULTS` faults.

    Making the LLMs tells the first fault. The key that it names is then left out, and the rest tried again, so that
    each provider need know nothing of it. Nothing is loaded or connected.

    Args:
        lines: The keys of each LLM, by its name; what is no mapping counts as an LLM without a fault.
    """
    remaining = {name: _Line(line if isinstance(line, dict) else _HARMLESS) for name, line in lines.items()}
    faults: list[ConfigurationError] = []
    for _ in range(2 * MOST_FAULTS if remaining else 0):
        try:
            LLMRegistry.from_config({name: line.values for name, line in remaining.items()})
        except ConfigurationError as fault:
            name = next((name for name in remaining if fault.message.startswith(f"llms.{name}: ")), None)
            if name is None:
                return [*faults, fault]
            faults.extend(remaining[name].leave_out(fault, f"llms.{name}"))
            if len(faults) >= MOST_FAULTS:
                break
        else:
            break
    return faults


class _Line:
    """The keys of one LLM that have no fault so far."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = copy.deepcopy(dict(values))
        self._gone: set[tuple[str | int, ...]] = set()
        self._places: dict[tuple[str | int, ...], list[int]] = {}
        """The places in the file of the items that are left of each list."""

    def leave_out(self, fault: ConfigurationError, path: str) -> Iterator[ConfigurationError]:
        """Leaves the key out that a fault names, and yields the fault, unless it comes of an earlier one.

        Args:
            fault: The fault.
            path: The path of the LLM.
        """
        rest = (fault.field or "").removeprefix(path)
        steps = tuple(int(index) if index else key for key, index in _STEP.findall(rest))
        if steps[:1] == ("parameters",) and len(self._present(steps)) < 2 <= len(steps):
            steps = steps[1:]  # it stands beside the other keys
        if steps in self._gone:  # required, and missing since it was left out
            self.values = dict(_HARMLESS)
            return
        steps = self._present(steps)
        if not steps or steps == ("provider",):
            self.values = dict(_HARMLESS)
            yield fault
            return
        *above, last = steps
        holder = self._value(above)
        if isinstance(holder, list) and isinstance(last, int):
            places = self._places.setdefault(tuple(above), list(range(len(holder))))
            yield _moved(fault, str(above[-1]), last, places.pop(last))
        else:
            yield fault
        del holder[last]
        if not holder and above:
            del self._value(above[:-1])[above[-1]]
            self._gone.add(tuple(above))
        if isinstance(last, str):
            self._gone.add(steps)

    def _present(self, steps: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """Returns as many of the steps as lead to a value."""
        value: Any = self.values
        for count, step in enumerate(steps):
            is_key = isinstance(value, dict) and step in value
            is_index = isinstance(value, list) and isinstance(step, int) and step < len(value)
            if not (is_key or is_index):
                return steps[:count]
            value = value[step]
        return steps

    def _value(self, steps: Sequence[str | int]) -> Any:
        value: Any = self.values
        for step in steps:
            value = value[step]
        return value


def _moved(fault: ConfigurationError, key: str, index: int, place: int) -> ConfigurationError:
    """Returns a fault of a list's item that names the item's place in the file."""
    now, then = f"{key}[{index}]", f"{key}[{place}]"
    return ConfigurationError(
        fault.message.replace(now, then, 1),
        field=(fault.field or "").replace(now, then, 1),
        limit=fault.limit,
        requested=fault.requested,
    )
