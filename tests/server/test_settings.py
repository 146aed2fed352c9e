"""The configuration file and the flags: checked whole, with the line and the key of what is wrong."""

import signal
from pathlib import Path
from typing import Any

import pytest

from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm_server.app import run
from abstractllm_server.settings import load_settings
from abstractllm_server.transport.limits import server_options


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "llms.yaml"


GOOD = """\
default: b
listen: 127.0.0.1:0
grace: 3s
log_level: warning
reflection: false
preload: [a]
llms:
  a: {provider: scripted, temperature: 0.5}
  b:
    provider: scripted
    reply: "${GREETING}, ${GREETING}!"
    timeout: 1m
    parameters:
      stop: [END]
"""


def test_file_is_read_with_its_variables(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREETING", "hi: {there}")
    file.write_text(GOOD)
    settings = load_settings(file, {})
    assert (settings.default, settings.grace, settings.reflection, settings.preload) == ("b", 3.0, False, ("a",))
    # A variable's value stays a text, whatever YAML would make of it.
    assert settings.llms["b"]["reply"] == "hi: {there}, hi: {there}!"


def test_flags_override_the_file_and_absent_ones_do_not(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREETING", "hi")
    file.write_text(GOOD)
    settings = load_settings(file, {"listen": "[::1]:7", "log_level": None, "reflection": True})
    assert (settings.listen, settings.log_level, settings.reflection) == ("[::1]:7", "warning", True)


# A file, the line and the key that the message names, and a part of its text.
WRONG: dict[str, tuple[str, int, str]] = {
    "unknown key": ("llms:\n  a: {provider: scripted}\nlisten_on: x\n", 3, "listen_on"),
    "wrong type": ("llms:\n  a: {provider: scripted}\nreflection: maybe\n", 3, "reflection"),
    "list for a mapping": ("\nllms: [a]\n", 2, "llms"),
    "text for an LLM": ("llms:\n  a: scripted\n", 2, "llms.a"),
    "out of range": ("llms:\n  a: {provider: scripted}\ngrace: 601\n", 3, "grace"),
    "no span": ("grace: soon\nllms:\n  a: {provider: scripted}\n", 1, "grace"),
    "log level": ("llms:\n  a: {provider: scripted}\nlog_level: LOUD\n", 3, "log_level"),
    "no LLM": ("grace: 1\nllms: {}\n", 2, "llms"),
    "unknown default": ("llms:\n  a: {provider: scripted}\ndefault: b\n", 3, "'b'"),
    "unknown preload": ("llms:\n  a: {provider: scripted}\npreload:\n  - b\n", 3, "'b'"),
    "name of an LLM": ("llms:\n  a: {provider: scripted}\n  b c: {provider: scripted}\n", 3, "'b c'"),
    "address": ("llms:\n  a: {provider: scripted}\nlisten: somewhere\n", 3, "'somewhere'"),
    "port": ("llms:\n  a: {provider: scripted}\nlisten: 127.0.0.1:65536\n", 3, "65536"),
    "beyond this machine": ("llms:\n  a: {provider: scripted}\nlisten: 0.0.0.0:50051\n", 3, "--insecure"),
    "duplicate key": ("listen: a:1\nllms:\n  a: {provider: scripted}\nlisten: b:2\n", 4, "listen stands twice"),
    "duplicate LLM": ("llms:\n  a: {provider: scripted}\n  a: {provider: scripted}\n", 3, "llms.a stands twice"),
    "duplicate setting": (
        "llms:\n  a:\n    provider: scripted\n    reply: y\n    reply: z\n",
        5,
        "llms.a.reply stands twice",
    ),
    "missing variable": ("llms:\n  a:\n    provider: scripted\n    reply: ${MISSING_ONE}\n", 4, "MISSING_ONE"),
    "variable in a list": ("llms:\n  a: {provider: scripted}\npreload: [a, '${MISSING_ONE}']\n", 3, "MISSING_ONE"),
    "bad YAML": ("llms:\n  a: {provider: scripted\ngrace: 1\n", 3, ""),
    "tab": ("llms:\n\ta: 1\n", 2, "\\t"),
    "unknown tag": ("llms:\n  a: !!python/object:os.system {}\n", 2, "could not determine a constructor"),
    "no mapping": ("- llms\n", 1, "mapping"),
    "endless reference": ("llms: &x\n  a: *x\n", 2, "*x"),
    # What only the LLM's own provider can check.
    "unknown setting": ("llms:\n  a:\n    provider: scripted\n    replay: x\n", 4, "replay"),
    "setting's type": ("llms:\n  a:\n    provider: scripted\n\n    max_retries: many\n", 5, "max_retries"),
    "setting's range": ("llms:\n  a:\n    provider: scripted\n    max_retries: 11\n", 4, "max_retries"),
    "nested parameter": ("llms:\n  a:\n    provider: scripted\n    parameters:\n      top_k: -1\n", 5, "top_k"),
    "flat parameter": ("llms:\n  a:\n    provider: scripted\n    temperature: 3\n", 4, "temperature"),
    "item of a list": ("llms:\n  a:\n    provider: scripted\n    stop:\n      - x\n      - ''\n", 6, "stop[1]"),
    "unknown LLM of a fallback": (
        "llms:\n  a: {provider: scripted}\n  best:\n    provider: fallback\n    llms:\n      - a\n      - b\n",
        7,
        "llms.best: llms[1]: no LLM is named 'b'; there are a, best",
    ),
    "circle of fallbacks": (
        "llms:\n  x: {provider: fallback, llms: [y]}\n  y:\n    provider: fallback\n    llms: [x]\n",
        5,
        "llms.y: llms[0]: LLMs name each other in a circle: x -> y -> x",
    ),
    "no LLM of a fallback": ("llms:\n  x:\n    provider: fallback\n    llms: []\n", 4, "at least one LLM"),
    "unknown parameter": ("llms:\n  a:\n    provider: scripted\n    parameters:\n      heat: 1\n", 5, "heat"),
    "unknown provider": ("llms:\n  a:\n    provider: nobody\n", 3, "nobody"),
    "no provider": ("llms:\n  a:\n    model: x\n", 2, "provider is missing"),
}


@pytest.mark.parametrize(("text", "line", "part"), WRONG.values(), ids=WRONG)
def test_fault_is_told_with_its_file_line_and_key(
    text: str, line: int, part: str, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MISSING_ONE", raising=False)
    file.write_text(text)
    try:
        settings = load_settings(file, {})
    except ConfigurationError as error:
        message = error.message
    else:
        assert run(settings, file) == 2
        message = capsys.readouterr().err.strip().removeprefix("error: NOT_CONFIGURED: ")
    assert message.startswith(f"{file}:{line}: ")
    assert part in message
    assert "\n" not in message
    assert "Traceback" not in message


def test_fault_of_a_flag_does_not_blame_the_file(file: Path) -> None:
    file.write_text("listen: 127.0.0.1:1\nllms:\n  a: {provider: scripted}\n")
    with pytest.raises(ConfigurationError, match=r"^listen: 0\.0\.0\.0:1 can be reached from other machines"):
        load_settings(file, {"listen": "0.0.0.0:1"})


@pytest.mark.parametrize("make", [None, b"\xff\xfe\x00", b"x" * (1024 * 1024 + 1)], ids=["missing", "bytes", "huge"])
def test_file_that_cannot_be_read_is_named(file: Path, make: bytes | None) -> None:
    if make is not None:
        file.write_bytes(make)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, {})
    assert str(file) in caught.value.message


def test_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(tmp_path, {})


@pytest.mark.parametrize("text", ["", "# nothing\n", "llms:\n"])
def test_empty_file_lacks_llms(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="llms"):
        load_settings(file, {})


LOCAL = ["127.0.0.1:0", "127.8.9.1:5", "localhost:1", "[::1]:65535", "unix:///run/x.sock", "unix:x.sock"]
REMOTE = ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "example.com:1", "[2001:db8::1]:1", "localhost.example.com:1"]
NOWHERE = [
    "",
    ":1",
    "127.0.0.1",
    "127.0.0.1:",
    "127.0.0.1:x",
    "127.0.0.1:-1",
    "[::1]",
    "::1:1",
    "unix:",
    "unix://",
    "unix:///",
    "[a]:5",
    "[]:5",
    "[127.0.0.1]:5",
    "[::1%\n]:5",
    "a b:5",
    "a\nb:5",
    "\udcff:5",
]


def listening(address: str, **flags: Any) -> str:
    return load_settings(None, {"listen": address, "llms": {"a": {}}} | flags).listen


@pytest.mark.parametrize("address", LOCAL)
def test_address_of_this_machine_needs_no_credentials(address: str) -> None:
    assert listening(address) == address


@pytest.mark.parametrize("address", REMOTE)
def test_address_beyond_this_machine_must_be_said_aloud(address: str) -> None:
    with pytest.raises(ConfigurationError, match="--insecure") as caught:
        listening(address)
    assert caught.value.field == "listen"
    assert listening(address, insecure=True) == address


@pytest.mark.parametrize("address", NOWHERE)
@pytest.mark.parametrize("insecure", [False, True])
def test_what_is_no_address_is_refused(address: str, insecure: bool) -> None:
    with pytest.raises(ConfigurationError, match=r"listen: .*is not a valid address"):
        listening(address, insecure=insecure)


def test_secret_of_the_file_is_not_repeated(file: Path) -> None:
    file.write_text("llms:\n  a:\n    provider: openai\n    api_key: [hush-hush]\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, {})
    assert f"{file}:4: llms.a" in caught.value.message
    assert "hush" not in f"{caught.value!r}{caught.value.requested}"


def test_signal_handlers_are_untouched_by_a_refused_configuration() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run(load_settings(None, {"llms": {"a": {"provider": "nobody"}}})) == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_connection_may_have_more_calls_than_the_llms_run_and_queue() -> None:
    # Otherwise the surplus would wait in the clients, and never hear OVERLOADED.
    llm = HuggingFaceProvider({"model": "demo", "max_queue": 9000, "max_batch_size": 100})
    assert llm.capacity == 9100
    assert dict(server_options(llm.capacity, 1))["grpc.max_concurrent_streams"] > llm.capacity
    assert dict(server_options(0, 1))["grpc.max_concurrent_streams"] >= 100


def test_the_keys_of_llms_are_not_in_the_settings_words() -> None:
    llms = {"gpt": {"provider": "openai", "api_key": "sk-canary", "extra_headers": {"x": "canary"}}}
    settings = load_settings(None, {"llms": llms, "insecure": True})
    assert "canary" not in f"{settings} {settings!r}"
