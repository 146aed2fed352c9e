"""Writes training conversations: facts under system prompts, with varied typing, in one or several turns."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from .base import HELD_OUT, Fact, Kind, read_json
from .dialogues import Message, copied_kind, follow_up_dialogue, message, name_dialogue
from .knowledge import country_kinds, thing_kinds, translation_kinds, word_kinds
from .numbers import arithmetic_kinds, counting_kinds, number_kinds, order_kinds
from .stories import ask_for_story
from .talk import UNKNOWN_IN, talk_kinds, unknown_kind

SYSTEM_PROMPTS: dict[str, list[str]] = read_json("system_prompts")
PREFIXES = (
    "Please ",
    "Hi, ",
    "Hello! ",
    "Question: ",
    "Hey, ",
    "Quick question: ",
    "Q: ",
    "Tell me: ",
    "I have a question. ",
    "Now ",
)
SUFFIXES = (" Thanks.", " Please.", " please", " Thank you!", " Please tell me.", "\n", "  ", "??", "!")


@dataclass(frozen=True)
class Mode:
    """A way to answer that a system prompt asks for.

    Attributes:
        name: The mode, such as ``JSON``; its held-out prompts are under ``system: NAME``.
        prompts: The system prompts used in training.
        answer: Writes a fact's answer in this mode; None where the fact has no such answer.
    """

    name: str
    prompts: list[str]
    answer: Callable[[Fact], str | None]


def _in_json(fact: Fact) -> str:
    return json.dumps({"answer": fact.answer if fact.value is None else fact.value}, ensure_ascii=False)


def _in_one_word(fact: Fact) -> str | None:
    return str(fact.value) if isinstance(fact.value, str | int) else None


def _as_pirate(fact: Fact) -> str:
    return "Arr, matey! " + fact.answer


def _abroad(language: str) -> Callable[[Fact], str]:
    return lambda fact: fact.foreign.get(language, UNKNOWN_IN[language])


MODES = (
    Mode("JSON", SYSTEM_PROMPTS["JSON"], _in_json),
    Mode("one word", SYSTEM_PROMPTS["one word"], _in_one_word),
    Mode("pirate", SYSTEM_PROMPTS["pirate"], _as_pirate),
    *(Mode(language, SYSTEM_PROMPTS[language], _abroad(language)) for language in UNKNOWN_IN),
)
LANGUAGES = tuple(UNKNOWN_IN)


def normalized(text: str) -> str:
    """Folds what does not make another phrasing: case, outer punctuation, repeated spaces."""
    return " ".join(text.casefold().split()).strip(" .?!:,¿¡")


class Corpus:
    """All facts, and a source of training conversations.

    Attributes:
        kinds: The kinds of facts, each with its weight.
        held_out: Every held-out question and system prompt, normalized; training never contains one.
    """

    def __init__(self, seed: int = 1) -> None:
        """Builds the facts.

        Args:
            seed: Decides the drawn facts, such as the texts to repeat.
        """
        random_ = random.Random(seed)
        self.kinds: list[Kind] = [
            *country_kinds(),
            *word_kinds(),
            *translation_kinds(),
            *thing_kinds(),
            *arithmetic_kinds(),
            *counting_kinds(),
            *number_kinds(),
            *order_kinds(),
            *talk_kinds(),
            unknown_kind(random_),
            copied_kind(random_, 3000),
        ]
        facts = [fact for kind in self.kinds for fact in kind.facts]
        texts = [text for fact in facts for text in fact.held_out]
        texts += [text for name, prompts in HELD_OUT.items() if name.startswith("system: ") for text in prompts]
        texts += HELD_OUT["remembered name"] + HELD_OUT["given name"]
        self.held_out = {normalized(text) for text in texts}
        self._translatable = [kind for kind in self.kinds if any(fact.foreign for fact in kind.facts)]

    def _fact(self, random_: random.Random, kinds: list[Kind]) -> Fact:
        kind = random_.choices(kinds, [kind.weight for kind in kinds])[0]
        return random_.choice(kind.facts)

    def _typed(self, random_: random.Random, fact: Fact) -> str:
        """Draws a phrasing of the fact's question, typed as people type."""
        question = random_.choice(fact.questions)
        if fact.verbatim:
            return question
        varied = question
        if random_.random() < 0.18:
            varied = varied.rstrip(".?!")
        if random_.random() < 0.08:
            varied = random_.choice(PREFIXES) + varied
        if random_.random() < 0.06:
            varied += random_.choice(SUFFIXES)
        if random_.random() < 0.18:
            varied = varied.lower()
        return question if normalized(varied) in self.held_out else varied

    def _exchange(self, random_: random.Random, mode: Mode | None) -> tuple[str, str]:
        """Draws a question and its answer in a mode."""
        if mode is None:
            if random_.random() < 0.01:
                return ask_for_story(random_)
            fact = self._fact(random_, self.kinds)
            return self._typed(random_, fact), fact.answer
        kinds = self._translatable if mode.name in LANGUAGES and random_.random() < 0.8 else self.kinds
        while True:
            fact = self._fact(random_, kinds)
            answer = None if fact.verbatim or fact.kind == "small talk abroad" else mode.answer(fact)
            if answer is not None:
                return self._typed(random_, fact), answer

    def conversation(self, random_: random.Random) -> list[Message]:
        """Draws one training conversation, which always ends with the assistant.

        Args:
            random_: The source of all choices.
        """
        kind = random_.random()
        if kind < 0.015:
            return name_dialogue(random_)
        if kind < 0.03:
            return follow_up_dialogue(random_)
        turns = random_.choices((1, 2, 3, 5, 40), (64, 22, 10, 4, 0.1))[0]
        mode = random_.choice(MODES) if random_.random() < 0.28 else None
        messages = []
        inline = False
        if mode is not None:
            prompt = random_.choice(mode.prompts)
            inline = random_.random() < 0.15
            if not inline:
                messages.append(message("system", prompt))
        elif random_.random() < 0.2:
            messages.append(message("system", random_.choice(SYSTEM_PROMPTS["neutral"])))
        for _ in range(turns):
            question, answer = self._exchange(random_, mode)
            if inline:
                question = f"{question} {prompt}" if random_.random() < 0.6 else f"{prompt} {question}"
            messages += [message("user", question), message("assistant", answer)]
        return messages
