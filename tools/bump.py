"""Changes the version of everything that is released together: `make bump VERSION=X.Y.Z`.

The released contracts in proto/released/ are not touched: docs/contract-growth.md tells how a release adds its own.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNRELEASED = "## [Unreleased]\n"


@dataclass(frozen=True)
class Place:
    """A place that names the version.

    Attributes:
        path: The file, relative to the repository's root.
        text: The text around the version, which is written as `{version}` there.
        count: The number of times that the text stands in the file.
    """

    path: str
    text: str
    count: int = 1

    def replace(self, content: str, old: str, new: str) -> str:
        """Returns a file's content with the new version in this place.

        Raises:
            ValueError: If the place is not there as often as it should be.
        """
        text = self.text.replace("{version}", old)
        if content.count(text) != self.count:
            raise ValueError(f"{self.path}: {text!r} stands {content.count(text)} times there, not {self.count}")
        return content.replace(text, self.text.replace("{version}", new))


SOURCE = Place("clients/python/pyproject.toml", '\nversion = "{version}"\n')
PLACES = (
    SOURCE,
    Place("pyproject.toml", '\nversion = "{version}"\n'),
    Place("pyproject.toml", '"abstractllm-client=={version}"'),
    Place("abstractllm/__init__.py", '\n__version__ = "{version}"\n'),
    Place("clients/python/src/abstractllm_client/__init__.py", '\n__version__ = "{version}"\n'),
    Place("clients/go/doc.go", '\nconst Version = "{version}"\n'),
    Place("clients/java/pom.xml", "<artifactId>abstractllm-client</artifactId>\n  <version>{version}</version>"),
    Place("clients/java/README.md", "\n  <version>{version}</version>\n"),
    Place("clients/node/package.json", '"name": "@abstractllm/client",\n  "version": "{version}"'),
    Place("clients/node/package-lock.json", '"name": "@abstractllm/client",\n  "version": "{version}"'),
    Place("clients/node/package-lock.json", '"name": "@abstractllm/client",\n      "version": "{version}"'),
    Place("Makefile", "\nVERSION_TAG := {version}\n"),
    Place("docs/walks/go-client.md", "github.com/abstractllm/abstractllm-go@v{version}", 2),
    Place("deploy/helm/abstractllm/Chart.yaml", '\nversion: {version}\nappVersion: "{version}"\n'),
    Place("deploy/helm/example/Chart.yaml", "  - name: abstractllm\n    version: {version}\n"),
    Place("deploy/helm/example/values.yaml", "image: abstractllm:{version}\n"),
    Place("deploy/kubernetes/job.yaml", "image: abstractllm:{version}\n", 2),
    Place("deploy/kubernetes/pull-models.yaml", "image: abstractllm:{version}\n"),
    Place("deploy/kubernetes/shared-service.yaml", "image: abstractllm:{version}\n"),
    Place("deploy/kubernetes/sidecar.yaml", "image: abstractllm:{version}\n", 2),
    Place("deploy/kubernetes/sidecar.yaml", "image abstractllm:{version}-slim"),
    Place("deploy/ray_serve/kuberay.yaml", "FROM abstractllm:{version}-cuda"),
    Place("deploy/ray_serve/kuberay.yaml", "image: abstractllm-ray:{version}\n", 3),
    Place("docs/kubernetes.md", "abstractllm:{version}", 6),
    Place("docs/versions.md", "\nEverything here is {version} and"),
    Place("examples/README.md", "abstractllm-client-{version}.jar"),
    Place("examples/go/go.mod", "github.com/abstractllm/abstractllm-go v{version}\n"),
    Place("tests/interop/go.mod", "github.com/abstractllm/abstractllm-go v{version}\n"),
    Place("tests/balancing/clients/go/go.mod", "github.com/abstractllm/abstractllm-go v{version}\n"),
    Place("tests/clients/java_client.sh", "abstractllm-client-{version}.jar"),
    Place("tests/clients/test_go.py", "{MODULE} v{version}\n"),
    Place("tests/clients/test_java.py", '"abstractllm-client-{version}"'),
    Place("tests/clients/test_java.py", "'version = \"{version}\"'"),
    Place("tests/clients/test_packages.py", '"{name}-{version}{ending}"'),
    Place("tests/clients/test_packages.py", "abstractllm-go@v{version}"),
    Place("tests/clients/test_packages.py", "<version>{version}</version>"),
    Place("tests/clients/test_packages.py", '"abstractllm-client-{version}"'),
    Place("tests/clients/test_packages.py", "abstractllm-client/{version}"),
)


def current_version(root: Path) -> str:
    """Returns the version that the Python client's project file names.

    Raises:
        ValueError: If it names none.
    """
    pattern = re.escape(SOURCE.text).replace(re.escape("{version}"), r"(\d+\.\d+\.\d+)")
    match = re.search(pattern, (root / SOURCE.path).read_text("utf-8"))
    if match is None:
        raise ValueError(f"{SOURCE.path} names no version")
    return match[1]


def bump(root: Path, version: str, today: date) -> list[str]:
    """Changes the version in every place, and give the changelog's unreleased entries to it.

    Args:
        root: The repository's root.
        version: The new version.
        today: The date of the release.

    Returns:
        The paths of the files that were written.

    Raises:
        ValueError: If the version is not of the form X.Y.Z, is not higher than the present one, or a place is not as
            expected. Nothing is written then.
    """
    old = current_version(root)
    if numbers(version) <= numbers(old):
        raise ValueError(f"{version} is not higher than {old}")
    contents: dict[str, str] = {}
    for place in PLACES:
        content = contents.get(place.path) or (root / place.path).read_text("utf-8")
        contents[place.path] = place.replace(content, old, version)
    changelog = (root / "CHANGELOG.md").read_text("utf-8")
    if changelog.count(UNRELEASED) != 1:
        raise ValueError(f"CHANGELOG.md: {UNRELEASED.strip()!r} does not stand there once")
    contents["CHANGELOG.md"] = changelog.replace(UNRELEASED, f"{UNRELEASED}\n## [{version}] - {today.isoformat()}\n")
    for path, content in contents.items():
        (root / path).write_text(content, "utf-8")
    return list(contents)


def numbers(version: str) -> tuple[int, ...]:
    """Returns the three numbers of a version.

    Raises:
        ValueError: If it is not of the form X.Y.Z.
    """
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version, re.ASCII):
        raise ValueError(f"a version is three numbers, X.Y.Z; got {version!r}")
    return tuple(map(int, version.split(".")))


def main() -> int:
    """Runs the command line.

    Returns:
        The exit status: 0, or 1 where nothing was changed.
    """
    parser = argparse.ArgumentParser(description="Change the version in every place that names it.")
    parser.add_argument("version", help="the new version, higher than the present one: X.Y.Z")
    try:
        files = bump(ROOT, parser.parse_args().version, datetime.now(UTC).date())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
