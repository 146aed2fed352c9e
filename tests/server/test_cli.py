"""The command as server and as its client, in processes of their own."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from abstractllm_client import LlmInfo, RemoteLLM

COMMAND = [sys.executable, "-m", "abstractllm_cli"]
CONFIGURATION = """\
default: echo
llms:
  echo: {provider: scripted}
  poet: {provider: scripted, reply: roses are red, temperature: 0.5}
  endless: {provider: scripted, script: [{text: first}, {delay: 3000}]}
  failing: {provider: scripted, script: [{text: half}, {error: RATE_LIMITED, message: slow down}]}
  hub: {provider: huggingface, model: org/model, cache_dir: CACHE}
"""


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, timeout=90, text=True)


@contextmanager
def serve(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Runs a server on a free port; gives its address and its process."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if match := re.search(r"listening on (\S+)", line):
                yield match[1], process
                return
        pytest.fail(f"the server ended with {process.wait()}")
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cli")
    snapshot = folder / "cache" / "models--org--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(b"x" * 1000)
    path = folder / "llms.yaml"
    path.write_text(CONFIGURATION.replace("CACHE", str(folder / "cache")))
    return str(path)


@pytest.fixture(scope="module")
def address(configuration: str) -> Iterator[str]:
    with serve("--config", configuration) as (address, _):
        yield address


@pytest.fixture(params=["in process", "on a server"])
def where(request: pytest.FixtureRequest, configuration: str) -> list[str]:
    """The same LLMs, in the command's own process and on a server."""
    if request.param == "in process":
        return ["--config", configuration]
    return ["--address", request.getfixturevalue("address")]


def test_an_answer_is_streamed(where: list[str]) -> None:
    done = run("generate", *where, "hello there")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello there\n", "")


def test_the_named_llm_answers(where: list[str]) -> None:
    done = run("generate", *where, "--llm", "poet", "--json", "--max-tokens", "2", "hello")
    completion = json.loads(done.stdout)
    assert (completion["llm"], completion["provider"], completion["text"]) == ("poet", "scripted", "roses are")
    assert (completion["finish_reason"], completion["usage"]["output_tokens"]) == ("max_tokens", 2)
    assert completion["message"] == {"role": "assistant", "parts": [{"text": "roses are"}]}


def test_json_has_one_shape_everywhere(configuration: str, address: str) -> None:
    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        return [shape(item) for item in value] if isinstance(value, list) else None

    shapes = []
    for where in (["--config", configuration], ["--address", address]):
        events = run("generate", *where, "--json", "--stream", "a b").stdout.splitlines()
        whole, failed, llms = (
            run("generate", *where, "--json", "a b").stdout,
            run("generate", *where, "--json", "--llm", "failing", "a b").stdout,
            run("llms", *where, "--json").stdout,
        )
        shapes.append([shape(json.loads(text)) for text in (*events, whole, failed, llms)])
    assert shapes[0] == shapes[1]


def test_a_failure_is_reported_after_what_came_before(where: list[str]) -> None:
    done = run("generate", *where, "--llm", "failing", "hello")
    assert (done.returncode, done.stdout) == (1, "half\n")
    assert done.stderr == "error: RATE_LIMITED: slow down\n"


def test_an_unknown_llm_is_an_error(where: list[str]) -> None:
    done = run("generate", *where, "--llm", "nobody", "hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: UNKNOWN_LLM: llm: no LLM is named 'nobody'; there are echo, poet")


def test_a_model_that_is_not_listed_is_refused(where: list[str]) -> None:
    done = run("generate", *where, "--model", "other", "hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match(r"error: \w+: .*other", done.stderr)


def test_a_value_out_of_range_is_refused_by_name(where: list[str]) -> None:
    done = run("generate", *where, "--temperature", "3", "hello")
    assert done.returncode == 1
    assert done.stderr == "error: INVALID_REQUEST: parameters.temperature: must be at most 2, got 3.0\n"


def test_a_timeout_ends_the_answer(where: list[str]) -> None:
    done = run("generate", *where, "--llm", "endless", "--timeout", "1", "hello")
    assert (done.returncode, done.stdout) == (1, "first\n")
    assert done.stderr.startswith("error: TIMEOUT: ")


def test_a_conversation_is_answered_line_by_line(where: list[str]) -> None:
    done = run("chat", *where, stdin="one\n/system brief\ntwo\n/quit\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\ntwo\n", "(system prompt set)\n")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_ctrl_c_ends_the_generation_on_the_server(address: str, form: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [*COMMAND, "generate", "--address", address, "--llm", "endless", "hi", *form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until_running(address, 1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, b"")
        wait_until_running(address, 0)
    finally:
        process.kill()
        process.communicate()


def wait_until_running(address: str, count: int) -> None:
    end = time.monotonic() + 60
    while next(llm.running for llm in llms(address) if llm.name == "endless") != count:
        assert time.monotonic() < end, f"there are not {count} running requests"
        time.sleep(0.05)


def llms(address: str) -> list[LlmInfo]:
    with RemoteLLM(address) as remote:
        return remote.list_llms()


def configuration_of(address: str) -> dict[str, object]:
    with RemoteLLM(address) as remote:
        return remote.get_config()


def test_the_llms_are_listed(where: list[str]) -> None:
    done = run("llms", *where)
    rows = sorted(line.split("\t") for line in done.stdout.splitlines())
    assert [row[:4] for row in rows] == [
        ["echo*", "scripted", "script", "ready"],
        ["endless", "scripted", "script", "ready"],
        ["failing", "scripted", "script", "ready"],
        ["hub", "huggingface", "org/model", "unloaded"],
        ["poet", "scripted", "script", "ready"],
    ]


def test_a_configuration_is_shown_and_changed(address: str) -> None:
    to = ("--address", address, "--llm", "poet")
    before = json.loads(run("config", "get", *to, "--json").stdout)
    assert before["config"]["temperature"] == 0.5
    done = run(
        "config", "set", *to, "max_tokens=1", 'stop=["END"]', "temperature=null", "timeout=10m", "reasoning_effort=low"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run("config", "get", *to).stdout
    after = json.loads(run("config", "get", *to, "--json").stdout)
    assert after["config"] == {key: value for key, value in before["config"].items() if key != "temperature"} | {
        "max_tokens": 1,
        "stop": ["END"],
        "timeout": 600,
        "reasoning_effort": "low",
    }
    assert run("generate", *to, "hello").stdout == "roses\n"

    stale = run("config", "set", *to, "max_tokens=2", "--etag", before["etag"])
    assert (stale.returncode, stale.stdout) == (1, "")
    assert stale.stderr.startswith("error: STALE_CONFIG: ")
    checked = run("config", "set", *to, "max_tokens=2", "--etag", after["etag"], "--dry-run", "--json")
    assert json.loads(checked.stdout)["config"]["max_tokens"] == 2
    assert json.loads(run("config", "get", *to, "--json").stdout) == after
    assert run("config", "set", *to, "max_tokens=2", "--etag", after["etag"]).returncode == 0


@pytest.mark.parametrize("change", ["max_tokens=-1", "max_tokens=many", "api_key=secret", "nonsense=1"])
def test_a_wrong_change_is_refused_by_name(address: str, change: str) -> None:
    before = configuration_of(address)
    done = run("config", "set", "--address", address, "temperature=1", change)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match(r"error: (INVALID_REQUEST|NOT_CONFIGURED): ", done.stderr)
    assert change.partition("=")[0] in done.stderr
    assert configuration_of(address) == before


@pytest.mark.parametrize("command", [("list",), ("clear", "--all", "--dry-run")])
def test_an_llm_without_a_cache_says_so(address: str, command: tuple[str, ...]) -> None:
    done = run("models", *command, "--address", address, "--llm", "echo")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: UNSUPPORTED_FEATURE: scripted has no model cache\n"


def test_a_servers_cached_models_are_listed_and_deleted(address: str) -> None:
    to = ("--address", address, "--llm", "hub")
    listed = json.loads(run("models", "list", *to, "--json").stdout)["models"]
    assert [(model["name"], model["size_bytes"], model["used_by"]) for model in listed] == [("org/model", 1000, [])]
    for last in ("--dry-run", "--yes"):
        done = run("models", "clear", "org/model", *to, last)
        assert (done.returncode, done.stdout) == (0, "org/model\n")
    assert run("models", "list", *to).stdout == ""
    again = run("models", "clear", "org/model", *to, "--yes")
    assert (again.returncode, again.stderr.split(": ")[:2]) == (1, ["error", "MODEL_NOT_FOUND"])


def test_pulling_is_refused_clearly_where_there_is_no_cache(address: str) -> None:
    for where in (("--address", address), ("--provider", "scripted", "grey")):
        done = run("models", "pull", *where)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: UNSUPPORTED_FEATURE: ")


def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can take the port meanwhile
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        done = run("generate", "--address", address, "hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: PROVIDER_UNAVAILABLE: ")
    assert address in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_stops_when_told(number: signal.Signals) -> None:
    with serve("--provider", "scripted", "--llm", "parrot", "--model", "grey") as (address, process):
        assert [(llm.name, llm.model, llm.is_default) for llm in llms(address)] == [("parrot", "grey", True)]
        process.send_signal(number)
        assert process.wait(60) == 0


def test_a_second_server_on_the_port_refuses(address: str) -> None:
    done = run("serve", "--provider", "scripted", "--port", address.rpartition(":")[2])
    assert done.returncode == 2
    assert f"cannot listen on {address}; is {address} in use?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--provider", "nobody"), "unknown provider 'nobody'"),
        (("--host", "0.0.0.0"), "listen: 0.0.0.0:50051 can be reached from other machines"),
        (("--host", "::"), "listen: [::]:50051 can be reached from other machines"),
        (("--host", "no host"), "listen: "),
        (("--llm", "a b"), "'a b' is not a valid name"),
        (("--port", "65536"), "--port"),
        (("--log-level", "loud"), "--log-level"),
        (("--config", "no such file"), "--config"),
        (("--config", __file__, "--model", "demo"), "--model: the file describes the LLMs"),
    ],
)
def test_a_misconfigured_server_ends_with_2(arguments: tuple[str, ...], said: str) -> None:
    done = run("serve", *([] if "--config" in arguments else ["--provider", "scripted"]), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.parametrize("command", [("serve",), ("llms",), ("generate", "hi")])
def test_a_mistake_in_the_file_is_shown_with_its_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "llms.yaml"
    path.write_text("llms:\n  one: {provider: scripted}\n  two:\n    provider: scripted\n    max_retries: 99\n")
    done = run(*command, "--config", str(path))
    assert done.returncode == (2 if command == ("serve",) else 1)
    assert f"{path}:5: llms.two: max_retries: must be at most 10, got 99" in done.stderr
