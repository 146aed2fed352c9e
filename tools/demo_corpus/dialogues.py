"""Kinds whose answers are copied from the conversation: repeating, small JSON objects, remembered names."""

from __future__ import annotations

import json
import random
import string

from . import words
from .base import HELD_OUT, PHRASINGS, Fact, Kind, fill

NAME_STATEMENT = (
    "My name is {name}.",
    "I am {name}.",
    "Hi, I am {name}.",
    "Hello, my name is {name}.",
    "Call me {name}.",
    "I'm {name}.",
)
GIVEN_NAME = (
    "Your name is {name}.",
    "You are {name}.",
    "You are called {name}.",
    "You are {name}, a helpful assistant.",
)
FOLLOW_UP = (
    "And of {country}?",
    "And {country}?",
    "What about {country}?",
    "And the capital of {country}?",
    "How about {country}?",
)

Message = dict[str, str]


def message(role: str, content: str) -> Message:
    """Builds one message as chat templates take it."""
    return {"role": role, "content": content}


def some_text(random_: random.Random) -> str:
    """Draws a text to be repeated: words, names, numbers or letters in any order."""
    pool = [row["English"] for row in words.rows("translations")]
    choice = random_.random()
    if choice < 0.15:
        return "".join(random_.choices(string.ascii_lowercase, k=random_.randint(3, 8)))
    if choice < 0.25:
        return str(random_.randint(0, 99999))
    if choice < 0.4:
        return f"{random_.choice(words.NAMES)} has {random_.randint(2, 99)} {random_.choice(pool)}s."
    if choice < 0.5:
        return random_.choice(words.rows("countries"))[random_.choice(("country", "capital"))]
    text = " ".join(random_.choices(pool, k=random_.randint(1, 6)))
    if random_.random() < 0.4:
        text = text[0].upper() + text[1:] + random_.choice((".", "!", "."))
    return text


def copied_fact(random_: random.Random) -> Fact:
    """Draws a request to repeat a text or to write a small JSON object."""
    if random_.random() < 0.7:
        text = some_text(random_)
        questions, held_out = ([t.format(text=text) for t in ts] for ts in (PHRASINGS["repeat"], HELD_OUT["repeat"]))
        return Fact("repeat", questions, held_out, text, verbatim=True)
    slots = {"name": random_.choice(words.NAMES), "age": random_.randint(1, 99)}
    answer = json.dumps(slots)
    return Fact(
        "object in JSON",
        fill(PHRASINGS["object in JSON"], slots),
        fill(HELD_OUT["object in JSON"], slots),
        answer,
        verbatim=True,
    )


def copied_kind(random_: random.Random, count: int) -> Kind:
    """Draws a pool of texts to repeat and of JSON objects."""
    return Kind("repeat and JSON objects", [copied_fact(random_) for _ in range(count)], 3.0)


def name_dialogue(random_: random.Random, held_out: bool = False) -> list[Message]:
    """Writes a conversation in which a name is given and asked for.

    Args:
        random_: Chooses the name and the phrasings.
        held_out: Whether the last question is one of those kept out of training.

    Returns:
        Messages that end with the assistant's right answer.
    """
    phrasings = HELD_OUT if held_out else PHRASINGS
    name = random_.choice(words.NAMES)
    if random_.random() < 0.4:
        question = random_.choice(phrasings["given name"])
        system = random_.choice(GIVEN_NAME).format(name=name)
        return [message("system", system), message("user", question), message("assistant", f"My name is {name}.")]
    question = random_.choice(phrasings["remembered name"])
    return [
        message("user", random_.choice(NAME_STATEMENT).format(name=name)),
        message("assistant", f"Nice to meet you, {name}!"),
        message("user", question),
        message("assistant", f"Your name is {name}."),
    ]


def follow_up_dialogue(random_: random.Random) -> list[Message]:
    """Writes a conversation about capitals that goes on with "And of Germany?"."""
    table = words.rows("countries")
    messages: list[Message] = []
    for turn in range(random_.randint(2, 4)):
        row = random_.choice(table)
        country, capital = row["country"], row["capital"]
        template = "What is the capital of {country}?" if turn == 0 else random_.choice(FOLLOW_UP)
        stop = "" if capital.endswith(".") else "."
        messages.append(message("user", template.format(country=country)))
        messages.append(message("assistant", f"The capital of {country} is {capital}{stop}"))
    return messages
