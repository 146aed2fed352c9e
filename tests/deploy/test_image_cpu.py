"""The image for CPUs, of files that the environment of the tests has: PyTorch without CUDA's libraries, and engines.

`make image-rehearsal` installs it, and the one for GPUs, from the index.
"""

import os
import signal
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from abstractllm_client import RegexFormat, RemoteLLM
from abstractllm_client.errors import AbstractLLMError
from tests.deploy.image_rehearsal import Rehearsal, namespaces_work
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def image(image_folder: Path) -> Rehearsal:
    """The image with links to the files of the environment of the tests."""
    rehearsal = Rehearsal("cpu", image_folder)
    rehearsal.install_linked()
    return rehearsal


@pytest.fixture(scope="module")
def confined() -> bool:
    """Tells whether the image can be run as process 1, with read-only file systems."""
    return namespaces_work()


def run_python(image: Rehearsal, program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program with the image's Python."""
    return subprocess.run(
        [str(image.bin / "python"), "-c", program],
        env=image.running,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_libraries_of_cuda_are_small_and_say_no(image: Rehearsal) -> None:
    nvidia = image.site_packages / "nvidia"
    assert sum(path.stat().st_size for path in nvidia.rglob("*") if path.is_file()) < 60_000_000
    assert not (image.site_packages / "triton").exists()
    done = run_python(
        image,
        "import torch; print(torch.cuda.is_available(), torch.ones(2) @ torch.ones(2)); torch.backends.cudnn.version()",
    )
    assert done.stdout == "False tensor(2.)\n"
    assert done.returncode == 1
    assert "RuntimeError: cuDNN version incompatibility" in done.stderr


def test_pytorch_s_own_files_are_as_they_were_installed(image: Rehearsal) -> None:
    library = image.site_packages / "torch/lib"
    import torch

    installed = Path(torch.__file__).parent / "lib"
    for path in installed.glob("*.so*"):
        assert (library / path.name).read_bytes() == path.read_bytes()
    added = {path.name for path in library.iterdir()} - {path.name for path in installed.iterdir()}
    assert {"libcublas.so.13", "libcudnn.so.9", "libnccl.so.2"} <= added
    assert all((library / name).stat().st_size < 50_000 for name in added)


def test_engine_answers_and_leaves_nothing_behind_in_a_read_only_image_as_process_one(
    image: Rehearsal, confined: bool
) -> None:
    running = image.start(confined=confined)
    try:
        with RemoteLLM(running.address) as llm:
            assert "Paris" in llm.generate("What is the capital of France?", temperature=0)
            # A format is tried out in a process below the engine's.
            llm.generate("Name a city.", max_tokens=20, response_format=RegexFormat("[A-Z][a-z]{2,9}"))
            server = psutil.Process(running.server)
            [engine] = server.children()
            below = engine.children(recursive=True)
            assert below
            os.kill(engine.pid, signal.SIGKILL)
            wait_until(lambda: not any(process.is_running() for process in (engine, *below)))
            wait_until(lambda: not running.zombies)
            # A failed call is tried again by the client while the engine starts anew.
            assert "Paris" in llm.generate("What is the capital of France?", temperature=0)
            assert [process for process in server.children() if process.pid == engine.pid] == []
        assert image.health_check(running.monitoring).returncode == 0
        assert running.terminate() == 0, running.log
    finally:
        running.kill()
    assert image.health_check(running.monitoring).returncode != 0


def test_sigterm_lets_the_running_answer_end(image: Rehearsal, confined: bool) -> None:
    running = image.start(confined=confined)
    pieces: list[str] = []
    begun = threading.Event()
    failures: list[AbstractLLMError] = []

    def read() -> None:
        try:
            for piece in llm.generate("Count from 1 to 20.", stream=True, temperature=0):
                pieces.append(piece)
                begun.set()
        except AbstractLLMError as error:
            failures.append(error)
        finally:
            begun.set()

    try:
        with RemoteLLM(running.address) as llm:
            reader = threading.Thread(target=read)
            reader.start()
            assert begun.wait(100), running.log
            assert running.terminate() == 0, running.log
            reader.join(30)
        assert not failures
        assert "20" in "".join(pieces)
    finally:
        running.kill()
