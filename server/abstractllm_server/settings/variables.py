"""Variables of the environment in the configuration's texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from abstractllm.errors import ConfigurationError

__all__ = ["Variables"]

_REFERENCE = re.compile(r"\$\$|\$\{(?P<inner>[^}]*)(?P<end>\}?)")
_INNER = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_SHORTEST_SECRET = 4
"""Characters of a value that messages do not repeat; a shorter one is found in ordinary words, too."""
_SHORTEST_PIECE = 32
"""Characters that a value must begin with to be known where a message has cut it off."""


class Variables:
    """Puts the environment's values in place of `${NAME}`, after the file has been parsed: a value cannot add keys.

    `${NAME:-DEFAULT}` is the default where the variable is not set, or empty; `$$` is one `$`. Any other `$` stands for
    itself.

    Args:
        environment: The variables.

    Attributes:
        faults: What is wrong with references, by the order of the values.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._used: dict[str, str] = {}
        self.faults: list[ConfigurationError] = []

    def fill(self, value: Any, path: str = "") -> Any:
        """Returns a value with all references in its texts replaced; a text with a fault stays as it is."""
        if isinstance(value, dict):
            return {key: self._fill_item(key, item, f"{path}.{key}" if path else key) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, f"{path}[{index}]") for index, item in enumerate(value)]
        if not isinstance(value, str) or "$" not in value:
            return value
        try:
            return _REFERENCE.sub(lambda match: self._look_up(match, path), value)
        except ConfigurationError as fault:
            self.faults.append(fault)
            return value

    def hide(self, error: ConfigurationError) -> ConfigurationError:
        """Returns an error in which a variable's name stands for its value, which may be a secret."""
        message = error.message
        for name, value in self._used.items():
            for spelling in (value, repr(value)[1:-1]):
                message = _without(message, spelling, f"${{{name}}}")
        if message == error.message:
            return error
        return ConfigurationError(message, field=error.field, limit=error.limit)

    def _fill_item(self, key: str, item: Any, path: str) -> Any:
        if any(match[0] != "$$" for match in _REFERENCE.finditer(key)):
            fault = f"{path}: a variable is put in place of ${{...}} in a value, not in a key"
            self.faults.append(ConfigurationError(fault, field=path))
        return self.fill(item, path)

    def _look_up(self, match: re.Match[str], path: str) -> str:
        if match[0] == "$$":
            return "$"
        inner = _INNER.fullmatch(match["inner"])
        if inner is None or not match["end"] or "${" in match["inner"]:
            raise ConfigurationError(
                f"{path}: {match[0][:40]!r} is no reference to a variable: write ${{NAME}} or ${{NAME:-DEFAULT}}, in "
                "which no other one may stand, or $$ for one $",
                field=path,
            )
        value = self._environment.get(inner["name"])
        if not value and inner["default"] is not None:
            return inner["default"]
        if value is None:
            raise ConfigurationError(f"{path}: the environment variable {inner['name']} is not set", field=path)
        try:
            value.encode()
        except UnicodeEncodeError:
            fault = f"{path}: the environment variable {inner['name']} does not hold UTF-8"
            raise ConfigurationError(fault, field=path) from None
        self._used[inner["name"]] = value
        return value


def _without(text: str, value: str, name: str) -> str:
    """Returns a text with a name in place of a value, also where the text has only the value's beginning."""
    if len(value) < _SHORTEST_SECRET:
        return text
    text = text.replace(value, name)
    start = text.find(value[:_SHORTEST_PIECE]) if len(value) > _SHORTEST_PIECE else -1
    while start >= 0:
        length = _SHORTEST_PIECE
        while length < len(value) and text.startswith(value[: length + 1], start):
            length += 1
        text = text[:start] + name + text[start + length :]
        start = text.find(value[:_SHORTEST_PIECE], start + len(name))
    return text
