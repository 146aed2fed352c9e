"""Small talk: greetings, who the model is, thanks, a joke, a poem, and what it does not know."""

from __future__ import annotations

import random

from .base import HELD_OUT, Fact, Kind, read_json

SMALL_TALK = read_json("small_talk")
UNKNOWN = read_json("unknown")
UNKNOWN_IN: dict[str, str] = UNKNOWN["foreign"]
"""Language -> the sentence with which the model says that it does not know."""


def talk_kinds() -> list[Kind]:
    """Builds small talk, in English and in the languages that the model knows a little of."""
    topics = {topic["name"]: topic for topic in SMALL_TALK["topics"]}
    facts = [
        Fact("small talk", topic["questions"], HELD_OUT[name], topic["answer"], topic["short"], topic["foreign"])
        for name, topic in topics.items()
    ]
    abroad = [
        Fact("small talk abroad", entry["questions"], [], topics[entry["topic"]]["foreign"][entry["language"]])
        for entry in SMALL_TALK["abroad"]
    ]
    return [Kind("small talk", facts, 2.5), Kind("small talk abroad", abroad, 1.0)]


def unknown_kind(random_: random.Random) -> Kind:
    """Builds questions that the model shall admit not to know.

    Args:
        random_: Chooses the second topic of comparisons, and large numbers.
    """
    questions = [
        template.format(topic=topic, other=random_.choice(UNKNOWN["topics"]))
        for template in UNKNOWN["templates"]
        for topic in UNKNOWN["topics"]
    ]
    questions += UNKNOWN["questions"] * 6
    for place in UNKNOWN["imaginary_places"]:
        questions_of_place = (
            f"What is the capital of {place}?",
            f"What language is spoken in {place}?",
            f"Who lives in {place}?",
        )
        questions += questions_of_place * 3
    for _ in range(300):
        a, b = random_.randint(1000, 99999), random_.randint(100, 99999)
        questions.append(f"What is {a} {random_.choice('+-*')} {b}?")

    def fact(phrasings: list[str], held_out: list[str]) -> Fact:
        return Fact("unknown", phrasings, held_out, UNKNOWN["answer"], "Unknown", UNKNOWN_IN)

    facts = [fact([question], []) for question in questions]
    return Kind("unknown", [fact(UNKNOWN["questions"][:5], HELD_OUT["unknown"]), *facts], 2.0)
