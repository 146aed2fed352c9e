"""The image without PyTorch, installed from the index by the Dockerfile's steps into an empty environment, and run."""

import asyncio
import json
import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.deploy.image_rehearsal import Rehearsal, RunningImage, namespaces_work
from tests.providers.fake_http import Exchange, serving
from tests.providers.openai_server import chunk, saying, texts
from tests.waiting import until, wait_until
from tools.images.locks import read
from tools.images.variants import IMAGES, OURS

pytestmark = pytest.mark.timeout(900)

DEAD = "http://127.0.0.1:9"
DEAD_PROXIES = {
    name: DEAD for proxy in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy") for name in (proxy, proxy.upper())
} | {"no_proxy": "", "NO_PROXY": ""}

WRITES = """
import json, os, sys
result = {}
for place in sys.argv[1:]:
    try:
        open(os.path.join(place, "x"), "w").close()
        result[place] = "written"
    except OSError as error:
        result[place] = error.strerror
print(json.dumps([os.getpid(), os.getuid(), result]))
"""


@pytest.fixture(scope="module")
def image(image_folder: Path) -> Rehearsal:
    """The installed image."""
    rehearsal = Rehearsal("slim", image_folder)
    rehearsal.install()
    return rehearsal


@pytest.fixture(scope="module")
def confined() -> bool:
    """Tells whether the image can be run as process 1, with read-only file systems."""
    return namespaces_work()


async def start(image: Rehearsal, url: str, confined: bool, **variables: str) -> RunningImage:
    """The started image, with a hosted provider of which a server of the test plays the part."""
    hosted = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"{url}/v1"}
    words = ("serve", "--provider", "openai", "--model", "gpt-5.4-mini")
    return await asyncio.to_thread(image.start, *words, confined=confined, **hosted, **variables)


async def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command beside this process's event loop."""
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_environment_holds_the_lock_and_our_own_two_distributions(image: Rehearsal) -> None:
    installed = distributions(path=[str(image.site_packages)])
    held = {canonicalize_name(entry.name): entry.version for entry in installed}
    slim = next(variant for variant in IMAGES if variant.name == "slim")
    assert held.keys() - OURS == {entry.name for entry in read(slim)}
    assert all(held[entry.name] == entry.version for entry in read(slim))
    assert held.keys() >= OURS
    # A file system of gigabytes would mean that PyTorch came along.
    size = sum(path.stat().st_size for path in image.bin.parent.rglob("*") if path.is_file())
    assert size < 250_000_000


def test_all_code_has_bytecode_that_needs_no_look_at_the_source(image: Rehearsal) -> None:
    for package in ("abstractllm", "abstractllm_server", "grpc", "openai"):
        compiled = next((image.site_packages / package / "__pycache__").glob("__init__.*.pyc"))
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 1  # unchecked hash
    report = subprocess.run(
        [str(image.bin / "python"), "-v", "-c", "import abstractllm_server.app"],
        env=image.running,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stderr
    loaded = re.findall(rf"# code object from '{image.bin.parent}/(\S+)'", report)
    assert len(loaded) > 100
    assert [path for path in loaded if not path.endswith(".pyc")] == []


def test_image_starts_with_its_own_configuration(image: Rehearsal, confined: bool) -> None:
    running = image.start(confined=confined, OPENAI_API_KEY="sk-test")
    try:
        wait_until(lambda: "LLM openai (openai, gpt-5.4-mini) is ready" in running.log)
        assert not [line for line in running.log.splitlines() if " INFO " not in line]
        assert running.terminate() == 0
    finally:
        running.kill()


async def test_hosted_provider_answers_from_a_read_only_image_as_process_one(image: Rehearsal, confined: bool) -> None:
    async with serving(saying("Pa", "ris.")) as upstream:
        running = await start(image, upstream.url, confined)
        try:
            answer = await run(
                image.command("generate", "--address", running.address, "What is the capital of France?"),
                image.running,
            )
            assert (answer.returncode, answer.stdout.strip()) == (0, "Paris."), answer.stderr
            assert upstream.requests[0].headers["authorization"] == "Bearer sk-test"
            checked = await asyncio.to_thread(image.health_check, running.monitoring)
            assert (checked.returncode, checked.stderr) == (0, "")
            assert await asyncio.to_thread(running.terminate) == 0, running.log
        finally:
            running.kill()
    checked = await asyncio.to_thread(image.health_check, running.monitoring)
    assert checked.returncode != 0


async def test_health_check_heeds_no_proxy_variable(image: Rehearsal) -> None:
    async with serving(saying("never")) as upstream:
        running = await start(image, upstream.url, False, **DEAD_PROXIES)
        try:
            for chosen in (DEAD_PROXIES, *({name: value} for name, value in DEAD_PROXIES.items() if value)):
                checked = await asyncio.to_thread(image.health_check, running.monitoring, **chosen)
                assert (checked.returncode, checked.stderr) == (0, ""), chosen
            hostile = {"PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere", "PYTHONWARNINGS": "error"}
            checked = await asyncio.to_thread(image.health_check, running.monitoring, **hostile)
            assert checked.returncode == 0, checked.stderr
        finally:
            running.kill()


async def test_sigterm_lets_the_running_answer_end(image: Rehearsal, confined: bool) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        first, *others = texts("one ", "two")
        await exchange.start()
        await exchange.send(first)
        await exchange.send(chunk("zero "))
        begun.set()
        await may_end.wait()
        for piece in others:
            await exchange.send(piece)
        await exchange.end()

    async with serving(slowly) as upstream:
        running = await start(image, upstream.url, confined)
        try:
            command = image.command("generate", "--address", running.address, "Count.")
            answering = asyncio.create_task(run(command, image.running))
            await asyncio.wait_for(begun.wait(), 60)
            ending = asyncio.create_task(asyncio.to_thread(running.terminate))
            await until(lambda: "stopping" in running.log)
            assert running.process.poll() is None
            may_end.set()
            assert (await answering).stdout.strip() == "zero one two"
            assert await ending == 0, running.log
        finally:
            may_end.set()
            running.kill()


def test_local_model_is_refused_by_the_name_of_the_image_that_has_it(image: Rehearsal, tmp_path: Path) -> None:
    file = tmp_path / "llms.yaml"
    file.write_text("llms:\n  gpt: {provider: openai, api_key: x}\n  local: {provider: huggingface, model: demo}\n")
    for words in (
        ["serve", "--config", str(file)],
        ["serve", "--check", "--config", str(file)],
        ["serve", "--model", "demo"],
    ):
        done = subprocess.run(
            image.command(*words), env=image.running, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert line.startswith("error: NOT_CONFIGURED: ")
        assert "'abstractllm-grpc[huggingface]'" in line
        assert "the image cpu or cuda instead of slim" in line
        if "--config" in words:
            assert "llms.yaml:3: llms.local: " in line


def test_only_the_volume_and_the_sockets_can_be_written_to(image: Rehearsal, confined: bool) -> None:
    if not confined:
        pytest.skip("this machine lets no test make namespaces")
    program = WRITES
    places = ["/opt/abstractllm", "/home/abstractllm", "/home/abstractllm/.cache/abstractllm", "/run/abstractllm"]
    folders = [image.in_folder(place) for place in places] + ["/tmp", "/var/tmp", "/"]
    done = subprocess.run(
        image.confined([str(image.bin / "python"), "-c", program, *folders]),
        env=image.running,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pid, user, result = json.loads(done.stdout)
    assert (pid, user) == (1, 10001)
    assert [place for place, outcome in result.items() if outcome == "written"] == folders[2:4]
    assert result["/tmp"] == "Read-only file system"
