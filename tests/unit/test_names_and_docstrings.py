"""Names say what a value is, and docstrings begin with a verb or a noun."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("abstractllm", "server", "cli", "clients/python/src", "tools", "benchmarks", "tests", "examples")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
NOT_NAMES = {"asked", "found", "given", "here", "own", "what", "who"}
"""Words that say nothing of the value they stand for."""
NAME_FIELDS: dict[type[ast.AST], str] = {
    ast.Name: "id",
    ast.arg: "arg",
    ast.keyword: "arg",
    ast.alias: "asname",
    ast.FunctionDef: "name",
    ast.AsyncFunctionDef: "name",
    ast.ClassDef: "name",
}
"""The field of each kind of node that holds a name."""
QUESTION = re.compile(r"(How|What|When|Where|Whether|Which|Who|Whom|Whose|Why)\b")


def faults(source: str) -> Iterator[str]:
    """Yields each name and docstring that is not as it should be, with its line."""
    tree = ast.parse(source)
    # A name that a library gives, such as hypothesis.given, is not ours to choose.
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    for node in ast.walk(tree):
        name = NAME_FIELDS.get(type(node))
        if name is not None and getattr(node, name) in NOT_NAMES - imported:
            yield f"{node.lineno}: the name {getattr(node, name)!r}"  # type: ignore[attr-defined]
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            text = ast.get_docstring(node) or ""
            if QUESTION.match(text):
                yield f"{getattr(node, 'lineno', 1)}: the docstring {text.partition(chr(10))[0]!r}"
        if isinstance(node, ast.ClassDef | ast.Module):
            yield from attribute_faults(node.body)


def attribute_faults(body: list[ast.stmt]) -> Iterator[str]:
    """Yields the docstrings of attributes that begin with a question word."""
    for before, node in itertools.pairwise(body):
        is_text = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
        if is_text and isinstance(before, ast.Assign | ast.AnnAssign) and QUESTION.match(node.value.value):  # type: ignore[attr-defined]
            yield f"{node.lineno}: the docstring {node.value.value!r:.80}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_and_docstrings_read_plainly(path: Path) -> None:
    assert list(faults(path.read_text("utf-8"))) == []


def test_faults_are_noticed() -> None:
    attribute = 'class A:\n    x = 1\n    """Whether it is."""\n\n    def f(self, given): """How."""\n'
    source = f'"""What is there."""\nfound = 1\n{attribute}\nasync def asked(): """The body."""\n'
    assert len(list(faults(source))) == 6
    assert list(faults("from hypothesis import given\n\n@given(1)\ndef f(): ...\n")) == []
