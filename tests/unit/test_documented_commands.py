"""The commands that the documentation shows: each exists, with the options that it is shown with."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from abstractllm_cli.main import app
from tests.unit.test_docs_links import ROOT

_CODE = re.compile(r"```.*?\n(.*?)```|(?<!`)`([^`]+)`(?!`)", re.DOTALL)
_COMMAND = re.compile(r"(?<![\w./-])(?:\S*/bin/)?abstractllm ([a-z]+(?![\w.])[^|#;&\n]*)")
_LISTED = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", "*.service", "*.sh"]


def shown() -> Iterator[tuple[str, str]]:
    """Yields the words behind `abstractllm` wherever code shows them, with the file."""
    listing = subprocess.run(_LISTED, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listing.split():
        text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
        parts = [block or span for block, span in _CODE.findall(text)] if Path(name).suffix == ".md" else [text]
        for part in parts:
            for line in _COMMAND.findall(part):
                if not line.startswith("import "):  # of Python's
                    yield name, line.strip()


SHOWN = sorted(set(shown()))


def test_commands_are_seen() -> None:
    assert len(SHOWN) > 20


@pytest.mark.parametrize(("file", "line"), SHOWN)
def test_a_command_that_is_shown_exists_with_its_options(file: str, line: str) -> None:
    words = [word.strip("'\"(),.") for word in line.split()]
    command = typer.main.get_command(app)
    while words and (commands := getattr(command, "commands", None)) is not None:
        name = words.pop(0)
        assert name in commands, f"{file}: there is no command {name!r}: {line}"
        command = commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.partition("=")[0] for word in words if word.startswith("-") and len(word) > 1}
    assert options <= known | {"--help", "-h"}, f"{file}: {line}"
