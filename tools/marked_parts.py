"""Parts of pages that are written by a tool, between two marks."""

import re

__all__ = ["with_part"]


def with_part(page: str, marks: tuple[str, str], text: str) -> str:
    """Returns a page with a text between its marks.

    Raises:
        SystemExit: If the page has not exactly one place for it.
    """
    pattern = re.compile(f"(?<={re.escape(marks[0])}\n).*?(?=\n{re.escape(marks[1])})", re.DOTALL)
    page, count = pattern.subn(lambda _: text, page)
    if count != 1:
        raise SystemExit(f"there must be one place between {marks[0]} and {marks[1]}, not {count}")
    return page
