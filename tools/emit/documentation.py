"""The tables of generation parameters in the documentation."""

from collections.abc import Sequence
from pathlib import Path

from abstractllm import enums
from tools.marked_parts import with_part
from tools.parameter_table import Parameter

PAGE = Path("docs/configuration.md")
MARKS = ("<!-- The table of generation parameters: written by `make generate`. -->", "<!-- End of the table. -->")


def emit(parameters: Sequence[Parameter], root: Path) -> dict[Path, str]:
    """Writes the table of generation parameters into its page.

    Args:
        parameters: All of them, in the contract's order.
        root: The repository, whose page keeps everything outside the table.

    Returns:
        The text of the page by its path.

    Raises:
        SystemExit: If the page has not exactly one place for the table.
    """
    page = (root / PAGE).read_text("utf-8")
    rows = "\n".join(
        f"| `{parameter.name}` | {limits(parameter)} | {_cell(parameter.doc)} |" for parameter in parameters
    )
    table = f"| parameter | limits | meaning |\n|---|---|---|\n{rows}"
    return {PAGE: with_part(page, MARKS, table)}


def limits(parameter: Parameter) -> str:
    """Writes a parameter's limits in words, such as `above 0 and at most 1`."""
    parts = []
    if parameter.items is not None:
        noun = "texts" if parameter.kind == "strings" else "tokens"
        parts.append(f"{parameter.items.in_words(is_count=True)} {noun}")
    if parameter.length is not None:
        parts.append(f"{parameter.length.in_words(is_count=True)} characters")
    if parameter.range is not None:
        parts.append(parameter.range_in_words())
    if parameter.enum:
        parts.append(", ".join(f"`{value}`" for value in getattr(enums, parameter.enum)))
    return ", each ".join(part.removeprefix("from ") for part in parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
