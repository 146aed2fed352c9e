"""The configuration file as YAML: its values, and the line of each key.

Plain words are read by the core schema of YAML 1.2: `true`, `null` and numbers are what they look like, but `yes`, `on`
and `2026-01-31` are text. So is `007`, which is another number in other versions of YAML. Keys are always text: an LLM
may be named `yes`, `1` or `null`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abstractllm.errors import ConfigurationError

if TYPE_CHECKING:
    import yaml

__all__ = ["YamlFile", "read_yaml"]

_LARGEST_FILE = 1024 * 1024
_DEEPEST = 32
"""Levels of nesting; no setting needs more."""
_TAG = "tag:yaml.org,2002:"
_CONSTANTS: dict[str, Any] = {"": None, "~": None} | {
    spelling: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for spelling in (word, word.capitalize(), word.upper())
}
_IN_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""Escapes can write it; no path, name or message can hold it."""
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,4000})|0o[0-7]{1,4000}|0x[0-9a-fA-F]{1,4000}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)(e[-+]?[0-9]+)?|[-+]?[0-9]+e[-+]?[0-9]+|[-+]?\.inf|\.nan")


@dataclass(slots=True)
class YamlFile:
    """A file's content.

    Attributes:
        values: Its values; empty for an empty file.
        lines: The line, from 1, of each key and of each item of a list, by its path.
        faults: Keys that stand twice, of which the first counts; their messages lack the file and the line.
    """

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    faults: list[tuple[int, ConfigurationError]] = field(default_factory=list)


def read_yaml(path: Path) -> YamlFile:
    """Reads a file.

    Raises:
        ConfigurationError: If it cannot be read, is too large or nested too deep, or is no YAML mapping.
    """
    import yaml

    try:
        with path.open("rb") as file:  # a pipe, too: a program may write the configuration
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise ConfigurationError(f"{path}: the file is larger than {_LARGEST_FILE} bytes")
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    try:
        return _Reader(path).read(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigurationError(
            f"{path}:{line}: holds the character #{error.character:04x}, {error.reason}"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        location = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigurationError(f"{location}: {getattr(error, 'problem', None) or error}") from error


@dataclass(slots=True)
class _Open:
    """A mapping or a list that has begun and not ended."""

    content: dict[str, Any] | list[Any]
    path: str
    key: str | None = None
    """The key of a mapping whose value comes next."""


class _Reader:
    """Builds the values from the parser's events, one after another: no nesting is too deep for that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = YamlFile()
        self._open: list[_Open] = []
        self._documents = 0

    def read(self, events: Iterator[yaml.Event]) -> YamlFile:
        """Reads all events."""
        import yaml

        for event in events:
            match event:
                case yaml.DocumentStartEvent():
                    self._documents += 1
                    if self._documents > 1:
                        raise self._fault(event, "the file must hold one document")
                case yaml.AliasEvent():
                    # One that holds itself would never end, and a few lines of them could fill the memory.
                    raise self._fault(event, f"aliases are not supported, got *{event.anchor}")
                case yaml.ScalarEvent():
                    if _IN_NO_TEXT.search(event.value):
                        raise self._fault(event, "holds a null character, or half of a pair of surrogates")
                    self._add(event, self._scalar(event))
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._begin(event, {} if isinstance(event, yaml.MappingStartEvent) else [])
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._open.pop()
        return self._file

    def _begin(self, event: yaml.CollectionStartEvent, content: dict[str, Any] | list[Any]) -> None:
        if event.tag is not None and event.tag not in (_TAG + "map", _TAG + "seq"):
            raise self._unknown_tag(event)
        if len(self._open) >= _DEEPEST:
            raise self._fault(event, f"is nested more than {_DEEPEST} levels deep")
        self._open.append(_Open(content, self._add(event, content)))

    def _add(self, event: yaml.NodeEvent, value: Any) -> str:
        """Puts a value where it belongs, and returns its path."""
        if not self._open:
            if isinstance(value, dict):
                self._file.values = value
            elif value is not None:
                raise self._fault(event, "the file must hold a mapping")
            return ""
        place = self._open[-1]
        if isinstance(place.content, list):
            path = f"{place.path}[{len(place.content)}]"
            self._file.lines.setdefault(path, _line(event))
            place.content.append(value)
            return path
        if place.key is None:
            place.key = self._key(event)
            return ""
        key, place.key = place.key, None
        path = _join(place.path, key)
        if key not in place.content:
            place.content[key] = value
        return path

    def _key(self, event: yaml.NodeEvent) -> str:
        """Reads a scalar as the key of a mapping's next value."""
        import yaml

        if not isinstance(event, yaml.ScalarEvent):
            raise self._fault(event, "a key must be text")
        place, key, line = self._open[-1], str(event.value), _line(event)
        path = _join(place.path, key)
        if key in place.content:
            first = self._file.lines.get(path)
            self._file.faults.append(
                (line, ConfigurationError(f"{path} stands twice; first in line {first}", field=path))
            )
        else:
            self._file.lines.setdefault(path, line)
        return key

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        text = str(event.value)
        if event.tag == _TAG + "str" or event.tag == "!" or (event.tag is None and not event.implicit[0]):
            return text
        if event.tag is not None and event.tag not in {_TAG + name for name in ("null", "bool", "int", "float")}:
            raise self._unknown_tag(event)
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.fullmatch(text):
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        number = text.lower()
        return float(number.replace(".inf", "inf").replace(".nan", "nan")) if _FLOAT.fullmatch(number) else text

    def _unknown_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> ConfigurationError:
        return self._fault(event, f"could not determine a constructor for the tag {event.tag!r}")

    def _fault(self, event: yaml.Event, message: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}:{_line(event)}: {message}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
