"""The container image without a container: its install steps, entry point, health check and signal run as written."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text("utf-8")


@dataclass(frozen=True)
class Step:
    """One instruction: the number of its stage (0 before the first FROM), its keyword, and the rest."""

    stage: int
    keyword: str
    value: str

    @property
    def words(self) -> list[str]:
        """The exec form of the instruction."""
        return [str(word) for word in json.loads(self.value)]


def parse(text: str) -> list[Step]:
    """The instructions of a Dockerfile, continuation lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    steps: list[Step] = []
    stage = 0
    for line in filter(None, map(str.strip, joined.splitlines())):
        keyword, _, value = line.partition(" ")
        stage += keyword == "FROM"
        steps.append(Step(stage, keyword, value.strip()))
    return steps


STEPS = parse(TEXT)
BUILD_STAGE = next(step.stage for step in STEPS if step.value.endswith(" AS build"))
LAST_STAGE = STEPS[-1].stage


def last(keyword: str) -> Step:
    """The instruction of that keyword that holds for the finished image."""
    return [step for step in STEPS if step.stage == LAST_STAGE and step.keyword == keyword][-1]


def test_one_build_argument_chooses_between_cpu_and_cuda() -> None:
    assert [step.value for step in STEPS if step.keyword == "ARG"] == ["BASE=cpu"]
    names = {step.value.split(" AS ")[1] for step in STEPS if step.keyword == "FROM" and " AS " in step.value}
    assert {"cpu", "cuda"} <= names
    assert [step.value for step in STEPS if step.keyword == "FROM" and step.stage == LAST_STAGE] == ["${BASE}"]


def test_server_does_not_run_as_root() -> None:
    user, _, group = last("USER").value.partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_models_are_kept_in_a_volume_at_the_default_cache() -> None:
    home = last("WORKDIR").value
    assert last("VOLUME").words == [f"{home}/.cache/abstractllm"]


def test_server_is_process_one_and_is_ended_by_sigterm() -> None:
    assert last("ENTRYPOINT").words == ["/opt/abstractllm/bin/abstractllm"]
    assert last("CMD").words[0] == "serve"
    assert last("STOPSIGNAL").value == "SIGTERM"


def test_build_context_holds_what_is_copied() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    for step in STEPS:
        if step.keyword == "COPY" and not step.value.startswith("--from"):
            for source in step.value.split()[:-1]:
                assert (ROOT / source).exists()
                assert any(source == name or source.startswith(f"{name}/") for name in allowed)


class Image:
    """The file system of the image, in a folder: the steps of the build stage run for real."""

    def __init__(self, folder: Path) -> None:
        cache = subprocess.run(
            [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, timeout=60, check=True
        ).stdout.strip()
        self.home = folder / "home"
        self.home.mkdir()
        self.source = folder / "src"
        self.source.mkdir()
        self.places = {
            "/opt/abstractllm": str(folder / "opt"),
            "/var/cache/pip": cache,
            "/home/abstractllm": str(self.home),
        }
        # PATH and HOME as in the image; what tells pip where packages are to be had stays that of this machine.
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        self.environment = kept | {"PATH": f"{folder / 'opt/bin'}:{os.defpath}", "HOME": str(self.home)}

    def in_folder(self, text: str) -> str:
        """The text with the image's absolute paths replaced by those of the folder."""
        for place, path in self.places.items():
            text = text.replace(place, path)
        return text

    def build(self) -> None:
        """Runs COPY and RUN of the build stage, and the final stage's COPY of files from the repository."""
        for step in STEPS:
            if step.keyword == "COPY" and not step.value.startswith("--from"):
                self.copy(*step.value.split())
            elif step.keyword == "RUN" and step.stage == BUILD_STAGE:
                self.run(step.value)

    def copy(self, *words: str) -> None:
        """COPY: files into a folder, or a folder's content into a folder."""
        *sources, target = words
        destination = self.source / self.in_folder(target)
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
                shutil.copytree(ROOT / source, destination, ignore=ignored)
            else:
                shutil.copy(ROOT / source, destination)

    def run(self, command: str) -> None:
        """RUN in shell form; the mounts are the builder's business, `python3` the interpreter of the tests."""
        command = re.sub(r"--mount=\S+\s*", "", command)
        command = re.sub(r"^python3 ", f"{sys.executable} ", command)
        result = subprocess.run(
            ["/bin/sh", "-c", self.in_folder(command)],
            cwd=self.source,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image's content, installed into an empty virtual environment by the steps of the Dockerfile."""
    folder = tmp_path_factory.mktemp("image")
    built = Image(folder)
    built.build()
    yield built
    shutil.rmtree(folder)  # several gigabytes


def run_check(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs the image's health check."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.timeout(1200)
def test_install_steps_make_a_server_that_is_healthy_and_ends_on_sigterm(image: Image) -> None:
    entry = [image.in_folder(word) for word in last("ENTRYPOINT").words]
    health = [image.in_folder(word) for word in json.loads(last("HEALTHCHECK").value.partition(" CMD ")[2])]
    # As the image starts it, but on ports that are free on this machine.
    command = [*entry, *last("CMD").words, "--port", "0", "--monitoring", "127.0.0.1:0"]
    server = subprocess.Popen(
        command,
        cwd=image.home,
        env=image.environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        printed = ""
        while (match := re.search(r"listening on 127\.0\.0\.1:(\d+)", printed)) is None:
            line = server.stdout.readline()
            assert line, f"the server ended: {printed}"
            printed += line
        address = f"127.0.0.1:{match[1]}"
        assert health[-1] in last("ENV").value
        monitoring = re.search(r"monitoring on http://(\S+)", printed)
        assert monitoring is not None
        check = [*health[:-1], monitoring[1]]
        checked = run_check(check, image.environment)
        assert checked.returncode == 0, checked.stderr

        answered = subprocess.run(
            [*entry, "generate", "--address", address, "What is the capital of France?"],
            env=image.environment,
            cwd=image.home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert answered.returncode == 0, answered.stderr
        assert "Paris" in answered.stdout

        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
        assert server.returncode == 0
        assert run_check(check, image.environment).returncode != 0
    finally:
        if server.poll() is None:
            server.kill()
            server.communicate()


@pytest.mark.timeout(1200)
def test_image_holds_the_pinned_versions(image: Image) -> None:
    frozen = subprocess.run(
        [image.in_folder("/opt/abstractllm/bin/pip"), "freeze", "--all"],
        env=image.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split("\n")
    pinned = set((ROOT / "constraints.txt").read_text("utf-8").splitlines())
    others = {line for line in frozen if line and not line.startswith("abstractllm-")}
    assert others <= pinned
