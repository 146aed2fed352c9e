"""Facts about numbers and orders: sums, counting, comparisons, days, months, letters, planets."""

from __future__ import annotations

import string

from .base import Fact, Kind, Value, make_fact
from .words import DAYS, MONTHS, ORDINALS, PLANETS, in_words

SUM_IN = {"French": "{a} plus {b} font {c}."}
DIFFERENCE_IN = {"French": "{a} moins {b} font {c}."}
PRODUCT_IN = {"French": "{a} fois {b} font {c}."}


def arithmetic_kinds() -> list[Kind]:
    """Builds sums of numbers up to 12, differences of numbers up to 20, and the multiplication table up to 6."""

    def calculate(kind: str, a: int, sign: str, b: int, c: int, foreign: dict[str, str]) -> Fact:
        slots = {"a": a, "b": b, "c": c}
        return make_fact(kind, slots, f"{{a}} {sign} {{b}} = {{c}}.", c, foreign)

    small = range(13)
    sums = [calculate("sum", a, "+", b, a + b, SUM_IN) for a in small for b in small]
    differences = [calculate("difference", a, "-", b, a - b, DIFFERENCE_IN) for a in range(21) for b in range(a + 1)]
    table = range(7)
    products = [calculate("product", a, "*", b, a * b, PRODUCT_IN) for a in table for b in table]
    return [Kind("sum", sums, 3.0), Kind("difference", differences, 3.5), Kind("product", products, 1.5)]


def counting_kinds() -> list[Kind]:
    """Builds counting up and down; most counts are short, some reach 100."""

    def count(kind: str, a: int, b: int) -> Fact:
        numbers = list(range(a, b + 1)) if a < b else list(range(a, b - 1, -1))
        return make_fact(kind, {"a": a, "b": b}, ", ".join(map(str, numbers)) + ".", numbers)

    short = [count("counting", a, a + n) for a in range(1, 11) for n in range(2, 11)]
    to = [count("counting to a number", 1, b) for b in [*range(3, 21), 25, 30, 40, 50]]
    down = [count("counting down", b + n, b) for b in range(2) for n in range(2, 11)]
    return [Kind("counting", short, 1.5), Kind("counting to a number", to, 0.8), Kind("counting down", down, 0.8)]


def number_kinds() -> list[Kind]:
    """Builds parity, number words and successors."""
    numbers = range(31)
    parity, words, digits, successors = [], [], [], []
    for a in numbers:
        parity_word = "odd" if a % 2 else "even"
        slots = {"a": a, "parity": parity_word, "words": in_words(a), "next": a + 1}
        parity.append(make_fact("even or odd", slots, "{a} is {parity}.", parity_word))
        words.append(make_fact("number in words", slots, "{a} is {words}.", in_words(a)))
        digits.append(make_fact("number in digits", slots, "{words} is {a}.", a))
        successors.append(make_fact("next number", slots, "{next} comes after {a}.", a + 1))
    return [
        Kind("even or odd", parity, 1.0),
        Kind("number in words", words, 1.0),
        Kind("number in digits", digits, 1.0),
        Kind("next number", successors, 1.0),
    ]


def order_kinds() -> list[Kind]:
    """Builds what comes after, before and at a place: days, months, letters, planets."""
    orders = {"day": DAYS, "month": MONTHS, "letter": list(string.ascii_uppercase), "planet": PLANETS}
    after, before, nth = [], [], []
    for group, items in orders.items():
        circular = group in ("day", "month")
        for place, item in enumerate(items):
            if circular or place + 1 < len(items):
                value: Value = items[(place + 1) % len(items)]
                slots = {"group": group, "item": item, "value": value}
                after.append(make_fact("what comes after", slots, "{value} comes after {item}.", value))
            if circular or place > 0:
                value = items[place - 1]
                slots = {"group": group, "item": item, "value": value}
                before.append(make_fact("what comes before", slots, "{value} comes before {item}.", value))
            if place < len(ORDINALS):
                name = {"day": "day of the week", "month": "month of the year", "letter": "letter of the alphabet"}
                slots = {"group": name.get(group, group), "ordinal": ORDINALS[place], "value": item}
                nth.append(make_fact("place in an order", slots, "The {ordinal} {group} is {value}.", item))
    return [
        Kind("what comes after", after, 1.0),
        Kind("what comes before", before, 1.0),
        Kind("place in an order", nth, 1.0),
    ]
