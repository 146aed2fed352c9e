"""Helm, built from the Go module proxy into `build/tools` where it is missing: `python -m tools.helm` prints its path.

The module's checksum is held against Go's public database. Building takes a minute or more, once for each version.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = "3.22.0"
KUBERNETES = "1.37"
"""The version of Kubernetes that Helm assumes where it talks to none."""
FOLDER = ROOT / "build/tools" / f"helm-{VERSION}"
BUILD_SECONDS = 1200


def binary() -> Path | None:
    """Returns the path of Helm, which is built first where it is missing.

    Returns:
        None where Go is not installed and CI=true is not set.

    Raises:
        SystemExit: If it cannot be built, or Go is missing with CI=true.
    """
    path = FOLDER / "helm"
    if path.exists():
        return path
    if shutil.which("go") is None:
        if os.environ.get("CI") == "true":
            sys.exit("helm: go is not installed, which builds it")
        return None
    print(f"building helm {VERSION} from the Go module proxy, once", file=sys.stderr, flush=True)
    _build(FOLDER)
    return path


def _build(folder: Path) -> None:
    """Builds Helm in a folder of its own, and moves it to its place when it is whole."""
    major, minor = KUBERNETES.split(".")
    module = "helm.sh/helm/v3"
    variables = {f"{module}/internal/version.version": f"v{VERSION}"}
    for package in ("pkg/chartutil", "pkg/lint/rules"):
        variables |= {f"{module}/{package}.k8sVersionMajor": major, f"{module}/{package}.k8sVersionMinor": minor}
    flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in variables.items())])
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        subprocess.run(
            ["go", "install", "-trimpath", "-ldflags", flags, f"{module}/cmd/helm@v{VERSION}"],
            cwd=partial,
            env={**os.environ, "GOBIN": str(partial), "CGO_ENABLED": "0", "GOFLAGS": ""},
            timeout=BUILD_SECONDS,
            check=True,
        )
        folder.mkdir(exist_ok=True)
        (partial / "helm").replace(folder / "helm")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        sys.exit(f"helm could not be built: {error}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    print(binary() or "helm: not there, as go is not installed")
