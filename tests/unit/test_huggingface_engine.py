"""The life of engine processes: what ends them, what does not, and what a program sees of it.

Where only the processes matter and not their answers, they are of the kind that starts in a moment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from abstractllm import create_llm
from abstractllm.errors import (
    ConfigurationError,
    EngineCrashedError,
    GenerationTimeoutError,
    ModelNotFoundError,
    ServerShuttingDownError,
)
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.types import LlmState
from tests.unit import stand_in_engine
from tests.unit.tiny_models import build
from tests.waiting import until, wait_until

HANG = 100.0
"""Seconds after which a test gives up waiting."""
NO_END = {1: -100.0, 3: -100.0}
LoadStep = tuple[LlmState, str, float | None]


def open_llm(directory: Path, **config: object) -> HuggingFaceProvider:
    llm = create_llm("huggingface", model=str(directory), temperature=0, **config)
    assert isinstance(llm, HuggingFaceProvider)
    return llm


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers last for minutes, if nothing ends them."""
    return build(tmp_path_factory.mktemp("llama"), "llama", max_position_embeddings=100_000)


@pytest.fixture(scope="module")
def followed(directory: Path) -> Iterator[tuple[HuggingFaceProvider, list[LoadStep]]]:
    """An LLM, and the steps that were seen of its loading."""
    with open_llm(directory) as llm:

        async def follow() -> list[LoadStep]:
            return [(step.state, step.phase, step.fraction) async for step in llm.load_progress()]

        yield llm, asyncio.run(follow())


@pytest.fixture(scope="module")
def llm(followed: tuple[HuggingFaceProvider, list[LoadStep]]) -> HuggingFaceProvider:
    return followed[0]


def test_loading_is_followed_to_its_end(followed: tuple[HuggingFaceProvider, list[LoadStep]]) -> None:
    llm, steps = followed

    async def follow_again() -> list[LlmState]:
        return [step.state async for step in llm.load_progress()]

    assert asyncio.run(follow_again()) == [LlmState.READY]
    assert steps[-1] == (LlmState.READY, "", None)
    assert {state for state, _, _ in steps[:-1]} == {LlmState.LOADING}
    assert steps[0][1] == "starting"
    assert all(fraction is None or 0 <= fraction <= 1 for _, _, fraction in steps)


def test_killed_engine_fails_what_it_worked_on_and_comes_back(llm: HuggingFaceProvider) -> None:
    states: list[LlmState] = []
    llm.on_change(lambda: states.append(llm.state[0]))
    pid = llm.engine_pid
    assert pid is not None
    slots = llm.get_capabilities()["max_concurrent_requests"]
    ahead = 1 if slots == 1 else max(4, slots // 8)

    async def kill() -> list[BaseException]:
        endless = [asyncio.create_task(llm.generate_async("hello", logit_bias=NO_END)) for _ in range(slots + ahead)]
        # More than the process is given: these wait in this program, and outlive the process.
        waiting = [asyncio.create_task(llm.complete_async("hello", max_tokens=5)) for _ in range(3)]
        await asyncio.sleep(0)
        await until(lambda: llm.running == slots + ahead + 3 and llm.queued == ahead + 3)
        os.kill(pid, signal.SIGKILL)
        failures = await asyncio.gather(*endless, return_exceptions=True)
        assert {(await answer).usage.output_tokens for answer in waiting} == {5}
        return [failure for failure in failures if isinstance(failure, BaseException)]

    failures = asyncio.run(asyncio.wait_for(kill(), HANG))
    assert len(failures) == slots + ahead
    for failure in failures:
        assert isinstance(failure, EngineCrashedError)
        assert failure.retry_after
        assert "signal 9" in failure.message
    assert states == [LlmState.LOADING, LlmState.READY]
    assert llm.engine_pid not in (None, pid)


def test_left_and_cancelled_answers_free_the_engine(llm: HuggingFaceProvider) -> None:
    # Each of these answers would go on for minutes.
    for _ in range(3):
        stream = iter(llm.generate("hello", stream=True, logit_bias=NO_END))
        next(stream)
        stream.close()  # type: ignore[attr-defined]

    async def cancel() -> None:
        calls = [asyncio.create_task(llm.generate_async("hello", logit_bias=NO_END)) for _ in range(6)]
        await until(lambda: llm.running == 6)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(asyncio.wait_for(cancel(), HANG))
    with pytest.raises(GenerationTimeoutError):
        llm.generate("hello", logit_bias=NO_END, timeout=0.3)
    assert llm.complete("hello", max_tokens=3, timeout=HANG / 2).usage.output_tokens == 3
    wait_until(lambda: llm.running == 0)
    assert llm.queued == 0


def test_engine_is_a_session_of_its_own(llm: HuggingFaceProvider) -> None:
    pid = llm.engine_pid
    assert pid is not None
    assert os.getsid(pid) == pid != os.getsid(0)


def test_changed_model_answers_the_next_request_the_running_one_keeps_its_own_and_closing_ends_everything(
    directory: Path, tmp_path: Path
) -> None:
    other = build(tmp_path, "llama", seed=1, max_position_embeddings=100_000)
    with open_llm(directory) as llm:
        old_text = llm.generate("hello", max_tokens=10)
        old_pid = llm.engine_pid
        stream = iter(llm.generate("hello", stream=True, max_tokens=300, logit_bias=NO_END))
        next(stream)
        llm.set_config(model=str(other))
        assert llm.state[0] is LlmState.READY
        new_text = llm.generate("hello", max_tokens=10)
        assert new_text != old_text
        assert llm.engine_pid != old_pid
        assert sum(1 for _ in stream) > 10
        assert old_pid is not None
        wait_until(lambda: not is_running(old_pid))
        closed_in_the_middle(llm)


def closed_in_the_middle(llm: HuggingFaceProvider) -> None:
    """Closing ends everything: the process, the answer that it was giving, and what comes after."""
    stream = iter(llm.generate("hello", stream=True, logit_bias=NO_END))
    next(stream)
    pid = llm.engine_pid
    llm.close()
    assert pid is not None
    assert not is_running(pid)
    assert llm.state == (LlmState.UNLOADED, "")
    with pytest.raises(ServerShuttingDownError):
        for _ in stream:
            pass
    with pytest.raises(ServerShuttingDownError):
        llm.generate("hello")
    llm.close()


def test_idle_model_is_unloaded_and_loaded_again_and_a_dropped_llm_leaves_no_engine(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_engine.use(monkeypatch)

    def use() -> int:
        llm = open_llm(directory, keep_alive="300ms")
        text = llm.generate("hello", max_tokens=5)
        wait_until(lambda: llm.state[0] is LlmState.UNLOADED)
        assert llm.engine_pid is None
        llm.set_config(keep_alive=None)
        assert llm.generate("hello", max_tokens=5) == text
        pid = llm.engine_pid
        assert pid is not None
        assert is_running(pid)
        return pid

    pid = use()
    wait_until(lambda: not is_running(pid))


def test_a_loaded_model_is_told_in_the_log(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in_engine.use(monkeypatch)
    caplog.set_level(logging.INFO, logger="abstractllm")
    with open_llm(directory) as llm:
        llm.generate("hello", max_tokens=2)
    told = [record.getMessage() for record in caplog.records if record.name == "abstractllm.engine"]
    assert any(re.fullmatch(r"model .* was loaded in [\d.]+ s on \w+(: .+)?", message) for message in told), told


def test_missing_directory_is_model_not_found(tmp_path: Path) -> None:
    with open_llm(tmp_path / "nowhere") as llm:
        for _ in range(2):
            with pytest.raises(ModelNotFoundError, match="nowhere") as failure:
                llm.generate("hello")
            assert failure.value.field == "model"
            assert llm.state[0] is LlmState.FAILED
            assert "nowhere" in llm.state[1]
        with pytest.raises(ModelNotFoundError):
            asyncio.run(llm.load())


def test_missing_torch_names_the_extra(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with open_llm(directory) as llm, pytest.raises(ConfigurationError, match=r"abstractllm-grpc\[huggingface\]"):
        llm.generate("hello")


def test_engine_that_dies_while_loading_says_its_last_words(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("import os; print('no more memory', flush=True); os._exit(3)", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with open_llm(directory) as llm, pytest.raises(Exception, match=r"(?s)status 3.*no more memory"):
        llm.generate("hello")


NOISY = """
import os, subprocess, sys
from transformers import LlamaForCausalLM

class NoisyForCausalLM(LlamaForCausalLM):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        child = subprocess.Popen(["sleep", "1000"])
        with open(os.environ["NOISY_FILE"], "w") as file:
            file.write(str(child.pid))

    def forward(self, *arguments, **options):
        print("noise" * 100, flush=True)
        os.write(1, b"\\x00\\x00\\x00\\x04noise" * 100)
        os.system("echo noise; echo noise >&2")
        try:
            input()
        except EOFError:
            pass
        return super().forward(*arguments, **options)
"""

PARENT = """
import sys, time
from abstractllm import create_llm

llm = create_llm("huggingface", model=sys.argv[1], temperature=0, trust_remote_code=sys.argv[2] == "trusted")
print("text", repr(llm.generate("hello", max_tokens=5)))
heavy = {"torch", "transformers", "tokenizers", "numpy", "huggingface_hub", "safetensors"}
print("heavy", sorted(heavy & set(sys.modules)))
print("pid", llm.engine_pid, flush=True)
while True:
    try:
        for piece in llm.generate("hello", stream=True, logit_bias={1: -100.0, 3: -100.0}):
            pass
    except KeyboardInterrupt:
        print("interrupted", repr(llm.generate("hello", max_tokens=5)), llm.engine_pid, flush=True)
"""


@pytest.fixture
def start_parent() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `PARENT` in a process group of its own; ended at the latest with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(parent)
        return parent

    yield start
    for parent in started:
        parent.kill()
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()


def read_words(parent: subprocess.Popen[str], first: str) -> list[str]:
    """The next line of the parent's output, which begins with a certain word."""
    assert parent.stdout is not None
    words = parent.stdout.readline().split()
    assert words[:1] == [first], words
    return words


def test_noise_harms_nothing_an_interrupt_reaches_the_parent_alone_and_its_end_ends_all(
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    llm: HuggingFaceProvider,
    start_parent: Callable[..., subprocess.Popen[str]],
) -> None:
    noisy = build(tmp_path / "noisy", "llama", max_position_embeddings=100_000)
    (noisy / "modeling_noisy.py").write_text(NOISY, "utf-8")
    config = (noisy / "config.json").read_text("utf-8")
    mapped = '{"auto_map": {"AutoModelForCausalLM": "modeling_noisy.NoisyForCausalLM"},'
    (noisy / "config.json").write_text(mapped + config[1:], "utf-8")
    monkeypatch.setenv("NOISY_FILE", str(tmp_path / "child"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    parent = start_parent(str(noisy), "trusted")
    text = read_words(parent, "text")
    assert text == ["text", *repr(llm.generate("hello", max_tokens=5)).split()]
    assert read_words(parent, "heavy")[1:] == ["[]"]
    engine, child = int(read_words(parent, "pid")[1]), int((tmp_path / "child").read_text("ascii"))
    assert is_running(engine)
    assert is_running(child)
    time.sleep(0.2)  # into the stream
    os.killpg(parent.pid, signal.SIGINT)
    assert read_words(parent, "interrupted")[1:] == [*text[1:], str(engine)]
    parent.kill()
    wait_until(lambda: not is_running(engine) and not is_running(child))


def test_forked_child_starts_an_engine_of_its_own(directory: Path, repository: Path) -> None:
    code = """
        import os, sys
        import pytest

        from abstractllm import create_llm
        from tests.unit import stand_in_engine

        stand_in_engine.use(pytest.MonkeyPatch())
        llm = create_llm("huggingface", model=sys.argv[1], temperature=0)
        text, pid = llm.generate("hello", max_tokens=5), llm.engine_pid
        child = os.fork()
        if child == 0:
            own = llm.generate("hello", max_tokens=5)
            ok = own == text and llm.engine_pid not in (None, pid)
            llm.close()
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert llm.generate("hello", max_tokens=5) == text
        assert llm.engine_pid == pid
        llm.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(directory)]
    subprocess.run(command, check=True, timeout=HANG, cwd=repository)
