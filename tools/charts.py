"""The Helm charts: `python -m tools.charts` lints, renders and packs them; `--write` writes the golden renderings anew.

`--package FOLDER` puts the chart there that is published.

A rendering is what `helm template` makes of a chart with one file of `tests/deploy/helm/values`. Names of files begin
with the chart's: `example-…` is of `deploy/helm/example`, which has the chart `abstractllm` as a dependency.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tools import helm

ROOT = Path(__file__).resolve().parent.parent
CHARTS = ROOT / "deploy/helm"
VALUES = ROOT / "tests/deploy/helm/values"
GOLDEN = ROOT / "tests/deploy/helm/golden"
RELEASE = "llm"
NAMESPACE = "text"
HELM_SECONDS = 120


class HelmError(Exception):
    """A run of Helm that failed; its message is what Helm printed."""


class Charts:
    """The charts in a copy, so that neither dependencies nor packages come into the repository's folders.

    Args:
        program: Helm.
        folder: The copies' place.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._rendered: dict[Path, str] = {}
        for name in ("abstractllm", "example"):
            ignored = shutil.ignore_patterns("charts", "Chart.lock")
            shutil.copytree(CHARTS / name, folder / name, ignore=ignored)
        self.run("dependency", "update", "example")

    def run(self, *words: str, folder: Path | None = None) -> str:
        """Runs Helm without this user's settings.

        Args:
            words: Its arguments.
            folder: Where it runs; the folder of the charts if absent.

        Returns:
            The standard output.

        Raises:
            HelmError: If it fails.
        """
        home = self._folder / "home"
        homes = {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        done = subprocess.run(
            [str(self._program), *words],
            cwd=folder or self._folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(home), **homes},
            capture_output=True,
            text=True,
            timeout=HELM_SECONDS,
            check=False,
        )
        if done.returncode:
            raise HelmError(done.stdout + done.stderr)
        return done.stdout

    def render(self, chart: str, *options: str) -> str:
        """Returns what `helm template` makes of a chart.

        Raises:
            HelmError: If Helm refuses the values.
        """
        return self.run("template", RELEASE, chart, "--namespace", NAMESPACE, *options)

    def rendered(self, values: Path) -> str:
        """Returns the rendering of a file of values.

        Raises:
            HelmError: If Helm refuses the values.
        """
        if values not in self._rendered:
            self._rendered[values] = self.render(chart_of(values), "--values", str(values))
        return self._rendered[values]

    def golden(self, values: Path) -> str:
        """Returns the rendering as its golden file has it.

        There are words in place of the version, and of the alerts and the dashboard, which have tests of their own.

        Raises:
            HelmError: If Helm refuses the values.
        """
        text = self.rendered(values).replace(version(), "X.Y.Z")
        for beginning in ("\nspec:\n  groups:", "\n  abstractllm.json: |"):
            text = re.sub(
                rf"(?<={re.escape(beginning)}\n).*?(?=\n---|$)", "    (a file of its own)", text, flags=re.DOTALL
            )
        return text

    def check(self) -> None:
        """Lints each chart with each of its files of values, and packs it.

        Raises:
            HelmError: If a chart has a fault.
        """
        for chart in ("abstractllm", "example"):
            self.run("lint", "--strict", chart)
            self.run("package", chart, "--destination", str(self._folder / "packages"))
        for values in value_files():
            self.run("lint", "--strict", chart_of(values), "--values", str(values))
            self.golden(values)


def chart_of(values: Path) -> str:
    """Returns the name of the chart that a file of values is for."""
    return "example" if values.stem.startswith("example") else "abstractllm"


def value_files() -> list[Path]:
    """Lists the files of values."""
    return sorted(VALUES.glob("*.yaml"))


def version() -> str:
    """Returns the version of the chart, which is that of what it installs."""
    return str(yaml.safe_load((CHARTS / "abstractllm/Chart.yaml").read_text("utf-8"))["version"])


@contextmanager
def charts(program: Path) -> Iterator[Charts]:
    """Lends the charts, in a folder that goes when the context ends."""
    with tempfile.TemporaryDirectory() as folder:
        yield Charts(program, Path(folder))


def main() -> int:
    """Runs the command line.

    Returns:
        The exit status: 1 where a chart has a fault.
    """
    parser = argparse.ArgumentParser(description="Lint, render and pack the Helm charts.")
    parser.add_argument("--write", action="store_true", help="write the golden renderings of the tests anew")
    parser.add_argument("--package", type=Path, metavar="FOLDER", help="put the chart to be published there, only")
    arguments = parser.parse_args()
    program = helm.binary()
    if program is None:
        print("the Helm charts are left alone: go, which builds helm, is not installed")
        return 1 if arguments.package else 0
    try:
        with charts(program) as those:
            if arguments.package:
                those.run("package", "abstractllm", "--destination", str(arguments.package.resolve()))
                return 0
            those.check()
            for values in value_files() if arguments.write else ():
                (GOLDEN / values.name).write_text(those.golden(values), "utf-8")
    except HelmError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"2 charts, {len(value_files())} files of values: linted, rendered, packed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
