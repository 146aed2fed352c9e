"""Facts, and the phrasings that make questions of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HELD_OUT_FILE = Path(__file__).parents[2] / "tests" / "data" / "demo_held_out.json"

Value = str | int | list[int] | dict[str, str | int]


@dataclass(frozen=True)
class Fact:
    """One thing that the model shall know.

    Attributes:
        kind: The group under which accuracy is reported.
        questions: Phrasings that training uses.
        held_out: Phrasings that training never uses.
        answer: The whole expected answer, in English.
        value: The bare answer, for "Answer in JSON." and "Answer in one word."; None where neither makes sense.
        foreign: The answer in other languages: language -> text.
        verbatim: True where the question's case and punctuation matter, so that training may not vary them.
    """

    kind: str
    questions: Sequence[str]
    held_out: Sequence[str]
    answer: str
    value: Value | None = None
    foreign: Mapping[str, str] = field(default_factory=dict)
    verbatim: bool = False


@dataclass(frozen=True)
class Kind:
    """Facts that are asked for in the same way.

    Attributes:
        name: The name of the kind.
        facts: Its facts.
        weight: The frequency at which training draws from this kind, relative to the other kinds.
    """

    name: str
    facts: Sequence[Fact]
    weight: float = 1.0


def read_json(name: str) -> Any:
    """Reads ``data/NAME.json`` of this package."""
    return json.loads((Path(__file__).parent / "data" / f"{name}.json").read_text(encoding="utf-8"))


PHRASINGS: dict[str, list[str]] = read_json("phrasings")
"""The name of a kind -> the phrasings used in training, with placeholders for the words of a fact."""
HELD_OUT: dict[str, list[str]] = json.loads(HELD_OUT_FILE.read_text(encoding="utf-8"))
"""The name of a kind -> the phrasings kept out of training."""


def fill(templates: Sequence[str], slots: Mapping[str, object]) -> list[str]:
    """Fills the placeholders of templates and gives each result a capital first letter."""
    filled = [template.format(**slots) for template in templates]
    return [text[0].upper() + text[1:] for text in filled]


def make_fact(
    kind: str,
    slots: Mapping[str, object],
    answer: str,
    value: Value | None = None,
    foreign: Mapping[str, str] | None = None,
    verbatim: bool = False,
) -> Fact:
    """Builds a fact from its kind's phrasings.

    Args:
        kind: The name of the kind; must have phrasings in both lists.
        slots: The values of the templates' placeholders.
        answer: The expected answer, a template too.
        value: The bare answer.
        foreign: Language -> template of the answer in that language.
        verbatim: See `Fact.verbatim`.
    """
    return Fact(
        kind=kind,
        questions=fill(PHRASINGS[kind], slots),
        held_out=fill(HELD_OUT[kind], slots),
        answer=fill([answer], slots)[0],
        value=value,
        foreign={language: text.format(**slots) for language, text in (foreign or {}).items()},
        verbatim=verbatim,
    )
