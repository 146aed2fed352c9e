"""The Dockerfile, read for tests: its instructions by stage, with the build arguments put in."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text("utf-8")
VARIANTS = ("cpu", "cuda", "slim")


@dataclass(frozen=True)
class Step:
    """One instruction.

    Attributes:
        stage: The name of its stage; empty for the last one and before the first.
        keyword: Such as RUN.
        value: The rest, continuation lines joined.
    """

    stage: str
    keyword: str
    value: str

    @property
    def words(self) -> list[str]:
        """The exec form of the instruction."""
        return [str(word) for word in json.loads(self.value)]

    @property
    def assignments(self) -> dict[str, str]:
        """The names and values of an ENV or a LABEL."""
        return {name: quoted or plain for name, quoted, plain in re.findall(r'(\S+?)=(?:"([^"]*)"|(\S*))', self.value)}


def parse(text: str) -> list[Step]:
    """The instructions of a Dockerfile."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    steps: list[Step] = []
    stage = ""
    for line in filter(None, map(str.strip, joined.splitlines())):
        keyword, _, value = line.partition(" ")
        if keyword == "FROM":
            stage = value.partition(" AS ")[2]
        steps.append(Step(stage, keyword, value.strip()))
    return steps


STEPS = parse(TEXT)


def argument(name: str) -> str:
    """The value of a build argument unless another one is given."""
    return next(step.value for step in STEPS if step.keyword == "ARG" and step.value.startswith(f"{name}=")).partition(
        "="
    )[2]


def stage(name: str, variant: str = "") -> list[Step]:
    """The instructions of one stage; with `${VARIANT}` replaced if one is named."""
    steps = [step for step in STEPS if step.stage == name and step.keyword != "FROM"]
    return [Step(step.stage, step.keyword, step.value.replace("${VARIANT}", variant or "${VARIANT}")) for step in steps]


def base(name: str) -> str:
    """The image that a stage is built from; the last one has the empty name."""
    return next(step.value.partition(" AS ")[0] for step in STEPS if step.keyword == "FROM" and step.stage == name)


def last(keyword: str, variant: str = "") -> Step:
    """The instruction of that keyword that holds for the finished image."""
    first = next(number for number, step in enumerate(STEPS) if step.keyword == "FROM")
    final = [step for step in STEPS[first:] if not step.stage and step.keyword == keyword][-1]
    return Step("", keyword, final.value.replace("${VARIANT}", variant or "${VARIANT}"))


def environment(variant: str) -> dict[str, str]:
    """The variables that ENV sets in the finished image: that of the base stage, then that of the last one."""
    steps = [step for name in (variant, "") for step in stage(name) if step.keyword == "ENV"]
    return {name: value for step in steps for name, value in step.assignments.items()}
