"""Facts to be learnt by heart: countries, words, animals, elements, books."""

from __future__ import annotations

from collections.abc import Iterable

from .base import Fact, Kind, make_fact
from .words import article, rows

LANGUAGES = ("French", "Spanish")
"""The languages that words are translated to."""
CAPITAL_IN = {"French": "La capitale {fr} est {fr_capital}."}

Row = dict[str, str]


def kind(name: str, items: Iterable[Row], answer: str, key: str, weight: float | None = None) -> Kind:
    """Builds a kind from the rows of a table.

    Args:
        name: The kind, whose phrasings are in ``data/phrasings.json``.
        items: The values of the placeholders of each fact.
        answer: The template of the answer.
        key: The column that holds the bare answer; numbers become integers.
        weight: The frequency at which it is drawn; by default it grows with the number of facts, so that
            those of all large kinds are drawn equally often.
    """
    facts = [make_fact(name, item, answer, int(item[key]) if item[key].isdigit() else item[key]) for item in items]
    return Kind(name, facts, max(0.7, len(facts) / 80) if weight is None else weight)


def country_kinds() -> list[Kind]:
    """Builds the kinds about countries."""
    abroad = {row["country"]: row for row in rows("capitals_abroad")}
    countries = []
    for row in rows("countries"):
        country = row["country"]
        bare = country.removeprefix("the ")
        plural = country != bare and country.endswith("s") and "United" not in country
        stop = "" if row["capital"].endswith(".") else "."
        countries.append(row | {"bare": bare, "verb": "are" if plural else "is", "stop": stop})
    capitals: list[Fact] = []
    for row in countries:
        known = abroad.get(row["country"])
        answer = "The capital of {country} is {capital}{stop}"
        capitals.append(make_fact("capital", row | (known or {}), answer, row["capital"], CAPITAL_IN if known else {}))
    return [
        Kind("capital", capitals, 4.0),
        kind("continent", countries, "{country} {verb} in {continent}.", "continent", 2.0),
        kind("language", countries, "People in {country} speak {language}.", "language", 2.0),
    ]


def opposites() -> list[Row]:
    """Returns each word with its opposite, in both directions; the first row of a word wins."""
    table: Row = {}
    for row in rows("opposites"):
        table.setdefault(row["word"], row["opposite"])
        table.setdefault(row["opposite"], row["word"])
    return [{"word": word, "opposite": opposite} for word, opposite in table.items()]


def translation_kinds() -> list[Kind]:
    """Builds translations from English."""
    kinds = []
    for language in LANGUAGES:
        items = [
            {"word": row["English"], "foreign": row[language], "language": language} for row in rows("translations")
        ]
        answer = 'The {language} word for "{word}" is "{foreign}".'
        kinds.append(kind(f"translation to {language}", items, answer, "foreign"))
    return kinds


def word_kinds() -> list[Kind]:
    """Builds the kinds about English words."""
    return [
        kind("opposite", opposites(), "The opposite of {word} is {opposite}.", "opposite"),
        kind("plural", rows("plurals"), "The plural of {word} is {plural}.", "plural"),
        kind("past tense", rows("past_tenses"), "The past tense of {word} is {past}.", "past"),
    ]


def thing_kinds() -> list[Kind]:
    """Builds the kinds about things, animals, elements and books."""
    things = []
    for row in rows("categories"):
        thing = row["thing"] if row["category"] in ("drink", "sport", "metal") else article(row["thing"])
        things.append({"thing": thing, "category": row["category"], "a_category": article(row["category"])})
    animals = [row | {"an_animal": article(row["animal"]), "a_young": article(row["young"])} for row in rows("animals")]
    return [
        kind("category", things, "{thing} is {a_category}.", "category"),
        kind("colour", rows("colours"), "{thing} is {colour}.", "colour"),
        kind("animal sound", animals, "{an_animal} says {sound}.", "sound"),
        kind("young animal", animals, "A young {animal} is called {a_young}.", "young"),
        kind("chemical symbol", rows("elements"), "The chemical symbol of {element} is {symbol}.", "symbol"),
        kind("author", rows("books"), "{book} was written by {author}.", "author"),
        kind("how many", rows("parts"), "{whole} has {number} {part}.", "number"),
    ]
