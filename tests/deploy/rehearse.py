"""Runs the steps of each image without Docker, and tells what they take: `make image-rehearsal VARIANTS="slim cpu"`.

Everything is downloaded that an image installs, gigabytes for `cuda`; a folder for temporary files holds it, and is
deleted at the end. The interpreter is one of the image's own version, if this machine has it, else the one that runs
this. The system's packages are those of this machine: apt-get is not run.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from abstractllm_client import RemoteLLM
from tests.deploy.dockerfile import VARIANTS
from tests.deploy.image_rehearsal import Rehearsal, namespaces_work
from tests.deploy.index_files import missing_files
from tools.images.variants import IMAGES, MACHINES


def interpreter(version: str) -> str:
    """Returns a Python of a version, or the one that runs this."""
    candidates = [
        shutil.which(f"python{version}") or "",
        *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")),
    ]
    for candidate in filter(None, candidates):
        tried = subprocess.run([candidate, "-c", "import ensurepip, venv"], capture_output=True, check=False)
        if tried.returncode == 0:
            return candidate
    return sys.executable


def size(folder: Path) -> int:
    """Returns the bytes that the files of a folder have, links to the same file counted once."""
    return sum({status.st_ino: status.st_size for status in (path.lstat() for path in folder.rglob("*"))}.values())


def rehearse(variant: str, folder: Path) -> None:
    """Installs an image into a folder, starts it, asks it, and ends it."""
    held = next(image for image in IMAGES if image.name == variant)
    for machine in MACHINES:
        missing = missing_files(held, machine)
        assert not missing, f"{variant}: the index has no file for {machine}: {missing}"
    print(f"{variant}: the index has the files of its lock for {' and '.join(MACHINES)}", flush=True)
    python = interpreter(held.python)
    label = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    begun = time.monotonic()
    image = Rehearsal(variant, folder, python)
    image.install()
    installed = time.monotonic()
    print(
        f"{variant}: installed with {label} in {installed - begun:.0f} s: {size(image.bin.parent) / 1e6:,.0f} MB",
        flush=True,
    )
    for part in sorted(image.site_packages.iterdir(), key=size, reverse=True)[:5]:
        print(f"    {size(part) / 1e6:>7,.0f} MB  {part.name}")
    confined = namespaces_work()
    running = image.start(confined=confined, OPENAI_API_KEY="sk-none")
    try:
        listening = time.monotonic()
        if variant != "slim":
            with RemoteLLM(running.address) as llm:
                answer = str(llm.generate("What is the capital of France?", temperature=0, timeout=300))
            assert "Paris" in answer, answer
        answered = time.monotonic()
        assert image.health_check(running.monitoring).returncode == 0
        status = running.terminate()
    finally:
        running.kill()
    assert status == 0, running.log
    how = "as process 1, read-only" if confined else "as a process of this machine"
    print(f"{variant}: ran {how}: listening after {listening - installed:.1f} s, first answer after ", end="")
    print(
        f"{answered - installed:.1f} s, SIGTERM: exit 0" if variant != "slim" else "none without a key, SIGTERM: exit 0"
    )


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Run the steps of the images without Docker.")
    parser.add_argument("variants", nargs="*", default=[*VARIANTS], help=f"of {', '.join(VARIANTS)}; all if absent")
    chosen = parser.parse_args().variants
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the folder is deleted then, too
    if unknown := set(chosen) - set(VARIANTS):
        parser.error(f"no such image: {', '.join(sorted(unknown))}")
    for variant in chosen:
        folder = Path(tempfile.mkdtemp(prefix="image-"))
        folder.chmod(0o755)
        try:
            rehearse(variant, folder)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
