"""The questions that a trained demo model must answer: facts, and phrasings kept out of training."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .base import HELD_OUT, Fact
from .conversations import MODES, Corpus
from .dialogues import Message, copied_fact, message, name_dialogue

SEED = 20_240
"""Seed of the drawn questions; differs from the training's, so that texts to repeat are new."""


@dataclass(frozen=True)
class Question:
    """A conversation to be continued, and the one right answer.

    Attributes:
        kind: The group under which accuracy is reported.
        messages: The conversation up to the user's last message.
        expected: The whole right answer.
    """

    kind: str
    messages: tuple[Message, ...]
    expected: str


def _ask(fact: Fact, question: str) -> Question:
    return Question(fact.kind, (message("user", question),), fact.answer)


def fact_questions(corpus: Corpus, per_kind: int) -> list[Question]:
    """Asks for facts in the first phrasing of their kind.

    Args:
        corpus: The facts.
        per_kind: At most this many facts of a kind; drawn with a fixed seed.

    Returns:
        One question for each fact; texts to repeat are no facts, see `repeat_questions`.
    """
    random_ = random.Random(SEED)
    questions = []
    for kind in corpus.kinds:
        facts = [copied_fact(random_) for _ in range(per_kind)] if kind.name.startswith("repeat") else list(kind.facts)
        chosen = random_.sample(facts, min(per_kind, len(facts)))
        questions += [_ask(fact, fact.questions[0]) for fact in chosen if fact.kind != "repeat"]
    return questions


def repeat_questions(count: int) -> list[Question]:
    """Asks to repeat texts that are not in the corpus: words, letters and numbers in any order.

    Args:
        count: The number of texts.
    """
    random_ = random.Random(SEED + 3)
    texts = (fact for fact in iter(lambda: copied_fact(random_), None) if fact.kind == "repeat")
    return [_ask(fact, fact.questions[0]) for fact, _ in zip(texts, range(count), strict=False)]


def held_out_questions(corpus: Corpus, per_phrasing: int) -> list[Question]:
    """Asks for facts in the phrasings, and under the system prompts, that are kept out of training.

    Args:
        corpus: The facts.
        per_phrasing: The number of facts that are asked for in each held-out phrasing.

    Returns:
        The questions; their kinds are those of the facts, or ``system: MODE``.
    """
    random_ = random.Random(SEED + 1)
    questions = []
    for kind in corpus.kinds:
        facts = [copied_fact(random_) for _ in range(40)] if kind.name.startswith("repeat") else list(kind.facts)
        facts = [fact for fact in facts if fact.held_out]
        if kind.name in ("small talk", "unknown"):
            questions += [_ask(fact, text) for fact in facts for text in fact.held_out]
            continue
        for fact in random_.sample(facts, min(per_phrasing, len(facts))):
            questions += [_ask(fact, text) for text in fact.held_out]
    capitals = next(kind for kind in corpus.kinds if kind.name == "capital")
    for mode in MODES:
        for prompt in HELD_OUT[f"system: {mode.name}"]:
            known = [fact for fact in capitals.facts if fact.foreign]
            for fact in random_.sample(known, per_phrasing):
                messages = (message("system", prompt), message("user", fact.questions[0]))
                questions.append(Question(f"system: {mode.name}", messages, str(mode.answer(fact))))
    for _ in range(per_phrasing):
        dialogue = name_dialogue(random_, held_out=True)
        questions.append(Question("remembered name", tuple(dialogue[:-1]), dialogue[-1]["content"]))
    return questions


def system_questions(corpus: Corpus, per_mode: int) -> list[Question]:
    """Asks for facts under the first system prompt of each mode.

    Args:
        corpus: The facts.
        per_mode: The number of facts of each mode.

    Returns:
        Questions of the kinds ``system: MODE``.
    """
    random_ = random.Random(SEED + 2)
    facts = [fact for kind in corpus.kinds for fact in kind.facts if fact.value is not None and not fact.verbatim]
    capitals = [fact for kind in corpus.kinds if kind.name == "capital" for fact in kind.facts if fact.foreign]
    questions = []
    for mode in MODES:
        for fact in random_.sample(capitals, per_mode // 2) + random_.sample(facts, per_mode // 2):
            answer = mode.answer(fact)
            if answer is not None:
                messages = (message("system", mode.prompts[0]), message("user", fact.questions[0]))
                questions.append(Question(f"system: {mode.name}", messages, answer))
    return questions
