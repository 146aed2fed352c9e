"""Asks the package index whether it has a file for each distribution of a lock, of a hash that the lock lists."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.utils import canonicalize_name

from tools.images.locks import read
from tools.images.variants import Variant


def missing_files(variant: Variant, machine: str) -> list[str]:
    """Returns the distributions that a machine of this kind would not get from the index by the lock.

    pip resolves for that machine without downloading what the index describes beside its files.
    """
    locked = {entry.name: entry for entry in read(variant)}
    # Debian 12 and Ubuntu 24.04 have glibc 2.36 and later.
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(5, 37)]
    platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
    target = ["--python-version", variant.python, "--implementation", "cp"]
    target += [f"--platform={platform}" for platform in platforms]
    with tempfile.TemporaryDirectory() as folder:
        wanted, report = Path(folder) / "wanted.txt", Path(folder) / "report.json"
        wanted.write_text("".join(f"{entry.name}=={entry.version}\n" for entry in locked.values()), "utf-8")
        options = ["--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:"]
        options += ["--target", f"{folder}/none", "--report", str(report), "-r", str(wanted)]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, *target], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            return re.findall(r"^ERROR: (.*)$", done.stderr, re.MULTILINE) or [done.stderr]
        chosen = json.loads(report.read_text("utf-8"))["install"]
    hashes = {
        canonicalize_name(item["metadata"]["name"]): item["download_info"]["archive_info"]["hashes"]["sha256"]
        for item in chosen
    }
    return [name for name, entry in locked.items() if f"sha256:{hashes.get(name)}" not in entry.hashes]
