"""The images without a container: the steps of the Dockerfile run in a folder, its entry point in namespaces.

`Rehearsal.install` runs COPY and RUN of the stage `build` as they are written, with the image's absolute paths replaced
by those of the folder. `Rehearsal.start` runs ENTRYPOINT and CMD as process 1 of a namespace of its own, as the user of
USER, with every file system read-only but what VOLUME names and the folder of sockets.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

import psutil
from packaging.utils import canonicalize_name

from tests.deploy.dockerfile import ROOT, environment, last, stage
from tests.waiting import wait_until
from tools.images.locks import read
from tools.images.variants import IMAGES

START_SECONDS = 90.0
USER = last("USER").value.partition(":")[0]
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]


def namespaces_work() -> bool:
    """Tells whether this machine lets a test make namespaces, as root may in most places."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    tried = subprocess.run([*NAMESPACES, "mount", "-o", "remount,bind,ro", "/"], capture_output=True, check=False)
    return tried.returncode == 0


class Rehearsal:
    """One image in a folder.

    Args:
        variant: Which one.
        folder: An empty folder that every user may enter.
        python: The interpreter that is `python3` in the image.
    """

    def __init__(self, variant: str, folder: Path, python: str = sys.executable) -> None:
        self.variant = variant
        self.folder = folder
        self.python = python
        self.home = folder / "home"
        self.source = folder / "src"
        cache = subprocess.run(
            [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, timeout=60, check=True
        ).stdout.strip()
        self.places = {
            "/opt/abstractllm": str(folder / "opt"),
            "/opt/build": str(folder / "build"),
            "/var/cache/pip": cache,
            "/home/abstractllm": str(self.home),
            "/run/abstractllm": str(folder / "run"),
            "/etc/abstractllm": str(folder / "etc"),
        }
        for place in (self.home / ".cache/abstractllm", folder / "run", folder / "etc", self.source):
            place.mkdir(parents=True)
        self.volumes = [self.in_folder(word) for word in last("VOLUME").words]
        for place in (*self.volumes, str(folder / "run")):
            if os.geteuid() == 0:
                os.chown(place, int(USER), int(USER))
        # What tells pip where packages are to be had stays that of this machine; nothing else of its environment does.
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        self.building = kept | {"PATH": os.environ["PATH"], "HOME": str(self.home), "VARIANT": variant}
        self.running = {"PATH": os.defpath} | {
            name: self.in_folder(value.replace("$PATH", os.defpath)) for name, value in environment(variant).items()
        }

    def in_folder(self, text: str) -> str:
        """The text with the image's absolute paths replaced by those of the folder."""
        for place, path in self.places.items():
            text = text.replace(place, path)
        return text

    @property
    def bin(self) -> Path:
        """The programs of the environment that is installed."""
        return Path(self.in_folder("/opt/abstractllm/bin"))

    @property
    def site_packages(self) -> Path:
        """The packages of the environment that is installed."""
        return next((self.bin.parent / "lib").glob("python3.*/site-packages"))

    def install(self) -> None:
        """Runs the stage `build`, and copies the files of the repository that the last stage adds."""
        for step in stage("build", self.variant):
            if step.keyword == "ENV":
                self.building |= {name: self.in_folder(value) for name, value in step.assignments.items()}
            elif step.keyword == "ARG" and "=" in step.value:
                self.building[step.value.partition("=")[0]] = step.value.partition("=")[2]
            elif step.keyword == "COPY":
                self.copy(step.value.split())
            elif step.keyword == "RUN":
                self.run(step.value)
        self.copy_last_files()

    def install_linked(self) -> None:
        """As `install`, but links what comes from an index to the environment of the tests, which has its versions.

        Bytecode is not compiled anew: each file has that of the environment of the tests.
        """
        _, built, _ = [step for step in stage("build", self.variant) if step.keyword == "RUN"]
        pip = Path(self.in_folder("/opt/build/bin/pip"))
        pip.parent.mkdir(parents=True)
        pip.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip "$@"\n', "utf-8")
        pip.chmod(0o755)
        self.run("python3 -m venv --without-pip /opt/abstractllm")
        names = {entry.name for entry in read(next(image for image in IMAGES if image.name == self.variant))}
        for distribution in distributions():
            if canonicalize_name(distribution.name) in names:
                self._link(distribution)
        for step in stage("build", self.variant):
            if step.keyword == "COPY":
                self.copy(step.value.split())
        self.run(built.value)
        self.copy_last_files()

    def _link(self, distribution: Distribution) -> None:
        """Links the files of a distribution, apart from its commands."""
        for file in distribution.files or ():
            if ".." not in file.parts:
                source, target = Path(str(distribution.locate_file(file))), self.site_packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists() and source.exists():
                    try:
                        target.hardlink_to(source)
                    except OSError:  # on another file system
                        shutil.copy(source, target)

    def copy_last_files(self) -> None:
        """COPY of the last stage: what comes from the repository, and not from the stage before."""
        for step in stage("", self.variant):
            if step.keyword == "COPY" and not step.value.startswith("--from"):
                self.copy(step.value.split())

    def copy(self, words: list[str]) -> None:
        """COPY: files into a folder or a file, or a folder's content into a folder."""
        *sources, target = words
        destination = self.source / self.in_folder(target)
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
                shutil.copytree(ROOT / source, destination, ignore=ignored)
            else:
                shutil.copy(ROOT / source, destination)

    def run(self, command: str) -> None:
        """RUN in shell form; the mounts are the builder's business, `python3` the interpreter that is given."""
        command = re.sub(r"--mount=\S+\s*", "", command)
        command = re.sub(r"(?<![\w./])python3 ", f"{self.python} ", command)
        result = subprocess.run(
            ["/bin/sh", "-c", self.in_folder(command)],
            cwd=self.source,
            env=self.building,
            capture_output=True,
            text=True,
            timeout=1700,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]

    def command(self, *words: str) -> list[str]:
        """ENTRYPOINT with the words of another command."""
        return [self.in_folder(word) for word in (*last("ENTRYPOINT").words, *words)]

    def health_check(self, address: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """HEALTHCHECK, where the variable names another address, with further variables in its environment."""
        check = [self.in_folder(word) for word in json.loads(last("HEALTHCHECK").value.partition(" CMD ")[2])]
        return subprocess.run(
            check,
            env=self.running | {"ABSTRACTLLM_MONITORING": address} | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def confined(self, command: Sequence[str]) -> list[str]:
        """A command as process 1 of namespaces, as the image's user, with read-only file systems."""
        writable = [*self.volumes, self.in_folder("/run/abstractllm")]
        # Each is mounted on itself, so that it stays as it is when the file system around it becomes read-only.
        kept = [f'mount --bind "{place}" "{place}"' for place in writable]
        others = (
            "awk '{print $2}' /proc/mounts | sort -u | while read -r place; do case \"$place\" in "
            + " | ".join([f'"{place}"' for place in writable])
            + ' | /proc*) ;; *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;; esac; done'
        )
        # The interpreter may be in a folder of root: reading is allowed everywhere, writing where the user may.
        become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
        become += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
        script = " && ".join([*kept, others, 'exec "$@"'])
        return [*NAMESPACES, "/bin/sh", "-c", script, "sh", *become, *command]

    def start(self, *words: str, confined: bool = True, **variables: str) -> RunningImage:
        """Starts the image with a command, or with its own, and waits until it listens.

        Args:
            *words: The command; CMD if absent.
            confined: Whether it runs in namespaces of its own.
            **variables: Variables of the environment beside those of the image.
        """
        command = self.command(*(words or last("CMD").words), "--port", "0", "--monitoring", "127.0.0.1:0")
        command += ["--health", "127.0.0.1:0"]
        return RunningImage(self.confined(command) if confined else command, self.home, self.running | variables)


class RunningImage:
    """A started image.

    Args:
        command: What is run.
        folder: Its working directory.
        environment: Its environment.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._log = folder.parent / "log"
        with self._log.open("w") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=dict(environment), stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        try:
            wait_until(lambda: self._found("listening on") or self.process.poll() is not None, START_SECONDS)
            assert self.process.poll() is None, self.log
            self.address = self._found("listening on")
            self.monitoring = self._found("monitoring on http://")
        except BaseException:
            self.kill()
            raise

    def _found(self, words: str) -> str:
        match = re.search(rf"{words} ?(127\.0\.0\.1:\d+)", self.log)
        return match[1] if match else ""

    @property
    def log(self) -> str:
        """All that it has printed."""
        return self._log.read_text("utf-8")

    @property
    def zombies(self) -> list[int]:
        """The processes below the server that have ended and that nobody has taken in."""
        return [
            process.pid
            for process in psutil.Process(self.server).children(recursive=True)
            if process.status() == psutil.STATUS_ZOMBIE
        ]

    @property
    def server(self) -> int:
        """The process of the server, by the number that it has outside of its namespace."""
        if self.process.args[0] != "unshare":  # type: ignore[index]
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("utf-8").split()
        return int(children[0])

    def terminate(self) -> int:
        """SIGTERM to the server, as an engine of containers sends it to process 1: its exit status."""
        os.kill(self.server, signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """Ends it whatever it does; with process 1 of a namespace the kernel ends all that is in it.

        The end of `unshare` alone would not do: a process that becomes another user is not tied to its parent any more.
        """
        if self.process.poll() is None:
            with contextlib.suppress(IndexError, OSError, subprocess.TimeoutExpired):
                os.kill(self.server, signal.SIGKILL)
                self.process.wait(10)
            self.process.kill()
            self.process.wait(30)
