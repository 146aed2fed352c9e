"""The sources that a release is built from: their commit, its date, their version, and the base images they name."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.images.variants import ROOT


class SourceError(Exception):
    """The sources are not what a release can be built from."""


@dataclass(frozen=True)
class Revision:
    """A commit.

    Attributes:
        commit: Its hash.
        seconds: When it was made, in seconds since 1970.
        version: The version that the packages have at it.
    """

    commit: str
    seconds: int
    version: str


def git(*words: str, folder: Path = ROOT) -> str:
    """Runs git, and returns what it prints.

    Raises:
        SourceError: If it fails, as outside of a checkout.
    """
    try:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except FileNotFoundError:
        raise SourceError("git is not installed") from None
    except subprocess.CalledProcessError as error:
        raise SourceError(f"git {words[0]}: {error.stderr.strip() or 'failed'}") from None


def version() -> str:
    """Returns the version of all packages."""
    text = (ROOT / "clients/python/pyproject.toml").read_text("utf-8")
    match = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise SourceError("clients/python/pyproject.toml names no version")
    return match[1]


def revision() -> Revision:
    """Returns the commit that is checked out.

    Raises:
        SourceError: If this is not a checkout.
    """
    commit, seconds = git("log", "-1", "--format=%H %ct").split()
    return Revision(commit, int(seconds), version())


def changed_files() -> list[str]:
    """Returns what in the checkout is not as it was committed, as `git status --short` prints it.

    Raises:
        SourceError: If this is not a checkout.
    """
    return git("status", "--short").splitlines()


def base_image(variant: str) -> str:
    """Returns the image that one of ours is built from, as the Dockerfile names it.

    Raises:
        SourceError: If the Dockerfile names none.
    """
    text = (ROOT / "Dockerfile").read_text("utf-8")
    stage = re.search(rf"^FROM \$\{{(\w+)\}} AS {variant}$", text, re.MULTILINE)
    argument = re.search(rf"^ARG {stage[1]}=(\S+)$", text, re.MULTILINE) if stage else None
    if argument is None:
        raise SourceError(f"the Dockerfile names no base image for {variant}")
    return argument[1]
