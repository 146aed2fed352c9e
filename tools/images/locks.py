"""The locks of the images: versions and hashes of all that is installed from a package index.

    python -m tools.images.locks            resolves them anew (`make locks`), which needs a package index
    python -m tools.images.locks --check    tells whether they follow from constraints.txt and pyproject.toml; offline

A lock holds names, versions, markers and hashes alone. It lists the hashes of every file of a version, so that one lock
serves each kind of machine.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.images.variants import ALL, MACHINES, OURS, ROOT, Variant, pins

_REQUIREMENT = re.compile(r"([a-z0-9.-]+)==([A-Za-z0-9.]+)(?: ; (.+))?")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Locked:
    """One distribution of a lock.

    Attributes:
        name: Its name, normalized.
        version: Its version.
        marker: The machines that it is installed on; empty for all.
        hashes: Those of the files that the version has, each as `sha256:...`.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines of the lock."""
        first = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return " \\\n    ".join([first, *(f"--hash={value}" for value in self.hashes)]) + "\n"


def parse(text: str, origin: str) -> list[Locked]:
    """Reads a lock, or what the resolver writes.

    Raises:
        ValueError: If it holds anything but names, versions, markers and hashes.
    """
    locked = []
    for line in re.sub(r" \\\n\s*", " ", text).splitlines():
        if not line or line.startswith("#"):
            continue
        first, *options = line.split(" --hash=")
        head = _REQUIREMENT.fullmatch(first)
        matches = [_HASH.fullmatch(f"--hash={option}") for option in options]
        if head is None or not matches or None in matches:
            raise ValueError(f"{origin}: {line[:80]!r} is not name==version with sha256 hashes")
        locked.append(Locked(head[1], head[2], head[3] or "", tuple(match[1] for match in matches if match)))
    return locked


def read(variant: Variant) -> list[Locked]:
    """Returns what an image's lock holds.

    Raises:
        ValueError: If it holds anything but names, versions, markers and hashes.
    """
    return parse(variant.lock.read_text("utf-8"), variant.lock.relative_to(ROOT).as_posix())


def resolve(variant: Variant) -> str:
    """Asks the package index for what an image needs, and returns the text of its lock.

    Raises:
        subprocess.CalledProcessError: If there is no solution, or no index.
    """
    options = ["--universal", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
    command = [sys.executable, "-m", "uv", "pip", "compile", *options, "--python-version", variant.python]
    command += ["--constraint", str(ROOT / "constraints.txt"), "-"]
    wanted = "\n".join(map(str, variant.requirements()))
    result = subprocess.run(command, input=wanted, stdout=subprocess.PIPE, text=True, check=True)
    return render(variant, parse(result.stdout, "uv"))


def render(variant: Variant, resolved: list[Locked]) -> str:
    """Returns the text of a lock: of what was resolved, that which is installed on one of our machines."""
    lines = [f"# What the image {variant.name} installs" if variant.extras else "# What builds the images"]
    lines[0] += ", made by `make locks` from constraints.txt and pyproject.toml.\n"
    for locked in resolved:
        machines = [machine for machine in MACHINES if _applies(locked.marker, variant, machine)]
        if machines and not variant.leaves_out(locked.name):
            marker = "" if len(machines) == len(MACHINES) else f"platform_machine == '{machines[0]}'"
            lines.append(Locked(locked.name, locked.version, marker, locked.hashes).text)
    return "".join(lines)


def _applies(marker: str, variant: Variant, machine: str) -> bool:
    return not marker or Marker(marker).evaluate(variant.environment(machine))


def needs(variant: Variant, machine: str) -> dict[str, set[str]]:
    """Returns what each distribution of an image needs, with the extras that are asked of it.

    The installed distributions say what they require. What the image itself needs is under the empty name.
    """
    environment = variant.environment(machine)
    waiting = [("", requirement, "") for requirement in variant.requirements()]
    seen: set[tuple[str, str]] = set()
    known: dict[str, set[str]] = {"": set()}
    while waiting:
        needing, requirement, of_extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate(environment | {"extra": of_extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name in OURS:
            continue
        known[needing].add(name)
        known.setdefault(name, set())
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [(name, required, extra) for required in _requires(name)]
    return known


def needed(variant: Variant, machine: str) -> set[str]:
    """Returns the names of all that an image needs, by what the installed distributions say that they require."""
    return {name for name in needs(variant, machine) if name and not variant.leaves_out(name)}


def _requires(name: str) -> list[Requirement]:
    """Returns what a distribution says that it requires; nothing where this machine cannot have it."""
    try:
        return [Requirement(line) for line in requires(name) or ()]
    except PackageNotFoundError:
        return []


def faults(variant: Variant) -> list[str]:
    """Returns in what a lock does not follow from constraints.txt and pyproject.toml."""
    place = variant.lock.relative_to(ROOT).as_posix()
    try:
        locked = read(variant)
    except (OSError, ValueError) as error:
        return [f"{place}: {error}" if isinstance(error, OSError) else str(error)]
    pinned, names = pins(), [entry.name for entry in locked]
    told = [f"{place}: {name} is listed twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for entry in locked:
        if entry.version != pinned.get(entry.name):
            said = pinned.get(entry.name, "nothing of it")
            told.append(f"{place}: {entry.name} is locked at {entry.version}; constraints.txt says {said}")
    for machine in MACHINES:
        held = {entry.name for entry in locked if _applies(entry.marker, variant, machine)}
        wanted = needed(variant, machine)
        told += [f"{place}: {name} is missing, which is needed on {machine}" for name in sorted(wanted - held)]
        told += [f"{place}: {name} is not needed on {machine}" for name in sorted(held - wanted)]
    return told


def main() -> int:
    """Runs the command line.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Resolve the locks of the images, or check them.")
    parser.add_argument("--check", action="store_true", help="only tell whether they are up to date")
    if parser.parse_args().check:
        told = [fault for variant in ALL for fault in faults(variant)]
        for fault in told:
            print(fault, file=sys.stderr)
        if told:
            print("renew the locks: make locks", file=sys.stderr)
        return 1 if told else 0
    for variant in ALL:
        try:
            text = resolve(variant)
        except subprocess.CalledProcessError:
            print(f"the lock of {variant.name} was not resolved, and stays as it was", file=sys.stderr)
            return 1
        variant.lock.parent.mkdir(parents=True, exist_ok=True)
        variant.lock.write_text(text, "utf-8")
        print(f"{len(read(variant)):>4} distributions  {variant.lock.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
