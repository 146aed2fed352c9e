"""Tiny stories of about 150 tokens, long enough to watch them stream."""

from __future__ import annotations

import random

from .words import NAMES, article

ANIMALS = (
    "fox", "dog", "cat", "bear", "rabbit", "mouse", "owl", "horse", "wolf", "lion", "frog", "duck", "goat",
    "elephant", "hedgehog",
    "dragon", "robot", "princess", "king", "bird", "fish", "cow", "tiger", "pirate", "wizard",
)  # fmt: skip
PLACES = ("forest", "village", "valley", "garden", "castle", "town", "meadow", "harbour")
THINGS = ("golden key", "red ball", "silver bell", "blue stone", "wooden box", "paper map", "little lamp", "warm hat")
HELPERS = ("old owl", "kind turtle", "small bee", "wise raven", "friendly baker", "quiet shepherd")
MORALS = (
    "And so everyone learned that a good friend is worth more than gold.",
    "And so everyone learned that small steps lead far.",
    "And so everyone learned that it is never too late to ask for help.",
)
ASK = (
    "Tell me a story.", "Tell me a story", "Tell a story.", "Write a story.", "Write a short story.",
    "Can you tell me a story?",
    "Please tell me a story.", "I want to hear a story.", "Story please", "Once upon a time",
    "Tell me a tiny story.", "A story, please.",
    "Tell me a short story.", "Write me a story.", "Tell me a long story.", "Write a long story.", "Make up a story.",
)  # fmt: skip
ASK_ABOUT = (
    "Tell me a story about {hero}.", "Tell a story about {hero}.", "Write a story about {hero}.",
    "Write a short story about {hero}.",
    "Can you tell me a story about {hero}?", "A story about {hero}, please.", "Write a tiny story about {hero}.",
    "I want to hear a story about {hero}.", "Make up a story about {hero}.",
)  # fmt: skip


def story(random_: random.Random, hero: str) -> str:
    """Writes one tiny story.

    Args:
        random_: Chooses names, places and things.
        hero: The kind of hero, such as ``fox``.

    Returns:
        Four short paragraphs.
    """
    name, place, thing = random_.choice(NAMES), random_.choice(PLACES), random_.choice(THINGS)
    helper = random_.choice(HELPERS)
    return (
        f"Once upon a time there was a little {hero} named {name}, who lived in a quiet {place}. "
        f"Every morning {name} went for a walk and said hello to everyone.\n\n"
        f'One day {name} found a {thing} under a tree. "Who has lost this {thing}?" asked {name}. '
        f"Nobody in the {place} knew. So {name} took the {thing} and went to look for its owner.\n\n"
        f'On the way the little {hero} met {article(helper)}. "I have lost my {thing}," said the {helper}, '
        f'"and I have looked for it all day." {name} was happy and gave the {thing} back.\n\n'
        f"From that day on they were friends, and every evening they sat together in the {place} "
        f"and watched the stars. {random_.choice(MORALS)} The end."
    )


def ask_for_story(random_: random.Random) -> tuple[str, str]:
    """Draws a request for a story, and a story that fits it."""
    hero = random_.choice(ANIMALS)
    if random_.random() < 0.45:
        return random_.choice(ASK), story(random_, "fox" if random_.random() < 0.5 else hero)
    return random_.choice(ASK_ABOUT).format(hero=article(hero)), story(random_, hero)
