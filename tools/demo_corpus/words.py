"""Small lists of words, and the tables of general knowledge in ``data``."""

from __future__ import annotations

import csv
from pathlib import Path

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
PLANETS = ("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune")
ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth",
)  # fmt: skip
NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Mia", "Noah",
    "Olga", "Paul", "Rosa", "Sam", "Tom", "Uma", "Vera", "Will", "Zoe", "Max", "Lily", "Oscar", "Nina", "Peter",
    "Julia", "Mark", "Sarah", "Alice", "Bob", "Maria", "John", "Laura", "Simon", "Eva", "Adam", "Lucy",
)  # fmt: skip
NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(number: int) -> str:
    """Writes a number from 0 to 99 in English words."""
    if number < 20:
        return NUMBER_WORDS[number]
    tens, ones = divmod(number, 10)
    return TENS[tens - 2] + (f"-{NUMBER_WORDS[ones]}" if ones else "")


def article(noun: str) -> str:
    """Puts the indefinite article before an English noun."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def rows(table: str) -> list[dict[str, str]]:
    """Reads a table of this package.

    Args:
        table: Its name: ``data/NAME.csv``, columns separated by semicolons, the first line naming them.

    Returns:
        One dictionary a row: column -> text.

    Raises:
        FileNotFoundError: There is no such table.
    """
    path = Path(__file__).parent / "data" / f"{table}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))
