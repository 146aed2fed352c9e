"""Lets PyTorch's build for CUDA be imported without most of CUDA: `python absent_cuda.py SITE_PACKAGES`.

The builds of PyTorch on the package index are linked against CUDA's libraries, 2.7 GB of them, and cannot be imported
without. On a machine without a GPU none of their functions is called. In the image `cpu` they are not installed; in the
place of each stands a library of a few kilobytes with the functions that PyTorch's libraries refer to. A call of one
returns 1, which in all of CUDA's interfaces is an error ("not initialized"), so whoever calls it is told.

It needs readelf, nm, as and ld, the package binutils of every distribution. PyTorch's own files stay as they are.
"""

import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

RETURN_ONE = {"aarch64": "mov w0, #1\nret", "x86_64": "movl $1, %eax\nret"}
OF_THE_SYSTEM = re.compile(r"lib(c|m|dl|rt|gcc_s|pthread|stdc\+\+)\.so|ld-linux|libcuda\.so")
"""What the base image has, and the driver's own library, which is never linked before a GPU is used."""


def run(*command: str) -> str:
    """Runs a tool, and returns what it prints."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def needed(library: Path) -> set[str]:
    """Returns the names of the libraries that one is linked against."""
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "--dynamic", "--wide", str(library))))


def search_path(library: Path) -> list[Path]:
    """Returns the folders in which a library looks for those that it is linked against."""
    match = re.search(r"\((?:RUNPATH|RPATH)\).*\[(.+)\]", run("readelf", "--dynamic", "--wide", str(library)))
    return [Path(part.replace("$ORIGIN", str(library.parent))) for part in match[1].split(":")] if match else []


def symbols(library: Path, kind: str) -> set[tuple[str, str]]:
    """Returns the names and versions of the symbols that a library has (`--defined-only`) or lacks."""
    words = [line.split() for line in run("nm", "--dynamic", kind, str(library)).splitlines()]
    parted = [parts[-1].partition("@") for parts in words if parts[-2] not in "wv"]
    return {(name, version.lstrip("@")) for name, _, version in parted}


def write(library: Path, names: list[str], version: str) -> None:
    """Writes a library whose functions all return 1; with a version, they all are of that version."""
    lines = [f".globl {name}\n.type {name}, %function\n{name}:" for name in names]
    ending = [RETURN_ONE[platform.machine()], '.section .note.GNU-stack,"",%progbits', ""]
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source, code, script = (Path(folder) / name for name in ("functions.s", "functions.o", "version"))
        source.write_text("\n".join([".text", *lines, *ending]), "utf-8")
        script.write_text(f"{version} {{ global: *; }};\n", "utf-8")
        versioned = [f"--version-script={script}"] if version else []
        run("as", "-o", str(code), str(source))
        run("ld", "-shared", "--strip-all", f"-soname={library.name}", *versioned, "-o", str(library), str(code))


def main(site_packages: Path) -> None:
    """Writes what is missing."""
    torch = sorted((site_packages / "torch/lib").glob("*.so*"))
    if not torch:
        sys.exit(f"{site_packages}: there is no PyTorch")
    own = {library.name for library in torch}
    places: dict[str, Path] = {}
    installed: set[Path] = set()
    for library in torch:
        folders = [*search_path(library), *(site_packages / "nvidia").glob("*/lib")]
        for name in needed(library) - own:
            found = [folder / name for folder in folders if (folder / name).exists()]
            installed.update(found)
            if not found and not OF_THE_SYSTEM.match(name):
                # Any folder does in which all of PyTorch's libraries look.
                places[name] = library.parent / name
    lacking = set().union(*(symbols(library, "--undefined-only") for library in torch))
    here = {name for library in [*torch, *installed] for name, _ in symbols(library, "--defined-only")}
    by_version: dict[str, list[str]] = {}
    for name, version in sorted(lacking):
        if name not in here:
            by_version.setdefault(version, []).append(name)
    unversioned = [name for name in by_version.get("", []) if re.match(r"_?(cu|nccl|nv)", name)]
    for name, place in sorted(places.items()):
        versions = [version for version in by_version if version and name.startswith(f"lib{version.lower()}")]
        version = name if name in by_version else versions[0] if versions else ""
        functions = by_version[version] if version else unversioned
        write(place.resolve(), functions, version)
        print(f"{name}: {len(functions)} functions in {place.stat().st_size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python absent_cuda.py SITE_PACKAGES")
    main(Path(sys.argv[1]))
