"""Every fault of a configuration at once, in the order of lines, and files that look different from what they are."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from abstractllm.errors import ConfigurationError
from abstractllm.registry import LLMRegistry
from abstractllm_server.settings import ServerSettings, faults_of, load_settings, locate


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "llms.yaml"


def read(file: Path, text: str) -> ServerSettings:
    file.write_text(text)
    return load_settings(file, {})


def faults(file: Path, text: str) -> list[str]:
    """The faults of a file, without the file's name."""
    with pytest.raises(ConfigurationError) as caught:
        read(file, text)
    messages = [fault.message for fault in faults_of(caught.value)]
    assert "\n".join(messages) == caught.value.message
    assert all(message.startswith(f"{file}:") for message in messages), messages
    return [message.removeprefix(f"{file}:") for message in messages]


MANY = """\
listen_on: x
grace: 601
reflection: maybe
default: nobody
preload: [a, nobody, '${NOT_SET}']
tls: {certificate: a.crt}
llms:
  a: {provider: scripted, heat: 1, temperature: 3}
  b c: {provider: scripted}
  one:
    provider: scripted
    max_retries: 11
    reply: ${NOT_SET}
    parameters:
      top_k: -1
      stop: [x, '', y, '']
  two: {provider: nobody}
  three: {model: x}
  four: text
  best:
    provider: fallback
    llms: [one, nobody, two, nothing, four]
    cooldown_time: soon
  best: {provider: scripted}
  local:
    provider: huggingface
    max_queue: -1
    threads: 0
"""


def test_all_faults_are_told_at_once_by_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    told = [(int(message.partition(":")[0]), message) for message in faults(file, MANY)]
    assert [line for line, _ in told] == sorted(line for line, _ in told)
    expected = [
        (1, "listen_on is not a known key; known are default,"),
        (2, "grace: must be at most 600"),
        (3, "reflection: "),
        (4, "default: no LLM is named 'nobody'"),
        (5, "preload[2]: the environment variable NOT_SET"),
        (6, "tls.key: field required"),
        (8, "llms.a: heat is not a known parameter"),
        (8, "llms.a: parameters.temperature"),
        (9, "'b c' is not a valid name"),
        (12, "llms.one: max_retries: must be at most 10"),
        (13, "llms.one.reply: the environment variable NOT_SET"),
        (15, "parameters.top_k"),
        (16, "parameters.stop[1]: must have at least 1 characters"),
        (16, "parameters.stop[3]: must have at least 1 characters"),
        (17, "llms.two: unknown provider 'nobody'"),
        (18, "llms.three: provider is missing"),
        (19, "llms.four: input should be a valid dictionary"),
        (22, "llms[1]: no LLM is named 'nobody'"),
        (22, "llms[3]: no LLM is named 'nothing'"),
        (23, "cooldown_time: must be a number of seconds"),
        (24, "llms.best stands twice; first in line 20"),
        (27, "max_queue: must be at least 0"),
        (28, "threads: must be at least 1"),
    ]
    for line, part in expected:
        assert any(number == line and part in message for number, message in told), (line, part, told)
    assert len(told) == len(expected), told


def test_the_command_tells_each_fault_in_a_line_of_its_own(file: Path) -> None:
    file.write_text("llms:\n  a: {provider: scripted}\ngrace: 601\nlog_level: loud\n")
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: NOT_CONFIGURED: {file}:3: grace")
    assert second.startswith(f"error: NOT_CONFIGURED: {file}:4: log_level")


def test_the_command_checks_a_configuration_and_its_files_without_serving_it(file: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    text = f"listen: 0.0.0.0:1\ntokens: {tokens}\nllms:\n  a: {{provider: scripted}}\n"
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--check", "--config", str(file)]

    def told() -> tuple[int, str]:
        file.write_text(text)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout == ""
        return done.returncode, done.stderr

    status, words = told()
    assert status == 2
    assert words.startswith(f"error: NOT_CONFIGURED: {file}:2: tokens: {tokens} cannot be read")
    tokens.write_text(f"{'0' * 64} admin\n")
    status, words = told()
    assert (status, words.splitlines()[-1]) == (0, "the configuration has no fault")
    assert "travel in the clear" in words
    text = text.replace("tokens:", "token:")
    assert told()[0] == 2


@pytest.mark.parametrize(
    ("provider", "status", "words"),
    [("nobody", 2, "unknown provider 'nobody'"), ("scripted", 0, "the configuration has no fault")],
)
def test_the_command_checks_what_its_options_describe(provider: str, status: int, words: str) -> None:
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--check", "--provider", provider]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr


def test_a_process_with_too_few_descriptors_is_refused_and_does_not_crash(file: Path) -> None:
    file.write_text("listen: 127.0.0.1:0\nllms:\n  a: {provider: scripted}\n")
    program = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)); import abstractllm_cli.__main__"
    command = [sys.executable, "-c", program, "serve", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "may have 48 file descriptors, and needs more than 64" in done.stderr


def test_faults_without_end_are_cut(file: Path) -> None:
    text = "llms:\n  a:\n    provider: scripted\n" + "".join(f"    unknown{index}: 1\n" for index in range(3000))
    assert 20 < len(faults(file, text)) <= 100


DEEP = {
    "lists": "llms: " + "[" * 100_000,
    "closed lists": "llms: " + "[" * 100_000 + "]" * 100_000,
    "mappings": "llms: " + "{a: " * 50_000,
    "keys": "llms:\n" + "".join(" " * depth + "a:\n" for depth in range(1, 1000)),
    "complex keys": "llms:\n" + "? " * 5000 + "a",
    "items": "llms:\n  " + "- " * 5000 + "a",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_deep_nesting_is_a_fault_with_a_line(file: Path, text: str) -> None:
    (fault,) = faults(file, text)
    assert "levels deep" in fault or "a key must be text" in fault


NAMES = ["yes", "no", "on", "off", "y", "null", "1", "1.0", "true", "0x1F", "1e3", "2026-11-27", "1_000", "007"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_whatever_it_looks_like(file: Path, name: str) -> None:
    settings = read(file, f"default: '{name}'\npreload: ['{name}']\nllms:\n  {name}: {{provider: scripted}}\n")
    assert list(settings.llms) == [settings.default] == [name]


@pytest.mark.parametrize("name", ["yes", "no", "on", "off", "y", "2026-11-27", "1_000", "007", "12:30"])
def test_a_plain_word_is_text_in_a_value_too(file: Path, name: str) -> None:
    reply = read(file, f"llms:\n  a: {{provider: scripted, reply: {name}}}\n").llms["a"]["reply"]
    assert reply == name


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("default: 1", "default: must be text (in a file, put it in quotes), got 1"),
        ("default: true", "default: must be text (in a file, put it in quotes), got True"),
        ("default: 1.0", "default: must be text"),
        ("preload: [1]", "preload[0]: must be text"),
        ("log_level: true", "log_level: must be text"),
        ("listen: 50051", "listen: must be text"),
        ("tokens: 1", "tokens: "),
        ("grace: true", "grace: must be a number, got True"),
        ("grace: .nan", "grace: "),
        ("grace: .inf", "grace: "),
        ("grace: .NaN", "grace: "),
        ("grace: -.Inf", "grace: "),
        ("write_timeout: .INF", "write_timeout: "),
        ("max_loaded: true", "max_loaded: must be a number, got True"),
        ("max_loaded: 1.5", "max_loaded: "),
        ("memory_budget: false", "memory_budget: must be a number, got False"),
        ("write_timeout: true", "write_timeout: must be a number, got True"),
        ("reflection: 2", "reflection: "),
        ("max_loaded: " + "9" * 5000, "max_loaded: "),
        ("memory_budget: " + "9" * 5000, "memory_budget: "),
        # 17, or 15 in octal; a thousand, or text; and a digit that nobody reads as such.
        ("grace: 017", "grace: must be a number in plain decimal digits, got '017'"),
        ("grace: 07m", "grace: must be a number in plain decimal digits"),
        ("max_loaded: '017'", "max_loaded: must be a number in plain decimal digits"),
        ("max_connections: 1_000", "max_connections: must be a number in plain decimal digits"),
        ("memory_budget: 1_000MB", "memory_budget: must be a number in plain decimal digits"),
        ("max_loaded: \u0663", "max_loaded: must be a number in plain decimal digits"),
        ("grace: 1:30", "grace: must be a number of seconds"),
    ],
)
def test_a_value_of_another_kind_is_named(file: Path, line: str, part: str) -> None:
    (fault,) = faults(file, f"llms:\n  '1': {{provider: scripted}}\n{line}\n")
    assert fault.startswith("3: ")
    assert part in fault


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("system_prompt", "1"),
        ("system_prompt", "true"),
        ("model", "1"),
        ("max_retries", "true"),
        ("max_retries", "01"),
        ("parameters", "0"),
        ("parameters", "''"),
        ("timeout", "true"),
        ("temperature", "true"),
        ("max_tokens", "true"),
        ("max_tokens", "9" * 5000),
        ("stop", "[1]"),
        ("log_content", "2"),
    ],
)
def test_a_value_of_another_kind_is_named_in_an_llm_too(file: Path, key: str, value: str) -> None:
    (fault,) = faults(file, f"llms:\n  a:\n    provider: scripted\n    {key}: {value}\n")
    assert fault.startswith("4: llms.a: ")
    assert key in fault


@pytest.mark.parametrize("key", ["api_key", "base_url", "extra_query", "extra_headers"])
def test_a_number_is_no_text_of_a_hosted_llm(file: Path, key: str) -> None:
    value = "{a: 1.10}" if key.startswith("extra") else "123456789"
    (fault,) = faults(file, f"llms:\n  a:\n    provider: openai\n    model: m\n    {key}: {value}\n")
    assert fault.startswith("5: llms.a: ")
    assert "quotes" in fault
    assert key != "api_key" or "123456789" not in fault


@pytest.mark.parametrize("name", ["DNS:operator", "CN=operator", "cn = operator", "Email:a@b.c", "IP:1.2.3.4", ""])
def test_a_certificate_s_name_in_other_words_is_named(file: Path, name: str) -> None:
    subjects = f"{{client_ca: c, certificate: a, key: b, subjects: {{good: admin, '{name}': admin}}}}"
    (fault,) = faults(file, f"llms:\n  a: {{provider: scripted}}\ntls: {subjects}\n")
    assert fault.startswith(f"3: tls.subjects: {name!r} is the name of nobody")


REFERENCES = [
    ("${X}", "set"),
    ("a${X}b${X}", "asetbset"),
    ("${X:-other}", "set"),
    ("${UNSET:-other}", "other"),
    ("${UNSET:-}", ""),
    ("${EMPTY:-other}", "other"),
    ("${EMPTY}", ""),
    ("${UNSET:-a b: c}", "a b: c"),
    ("${UNSET:-$}", "$"),
    ("$${X}", "${X}"),
    ("$$", "$"),
    ("$$$$", "$$"),
    ("$$${X}", "$set"),
    ("costs $5", "costs $5"),
    ("$X", "$X"),
    ("^a$", "^a$"),
]


@pytest.mark.parametrize(("text", "value"), REFERENCES)
def test_references_to_variables(file: Path, text: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X", "set")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    llms = read(file, f"llms:\n  a: {{provider: scripted, reply: '{text}'}}\n").llms
    assert llms["a"]["reply"] == value


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [("temperature", "0.5", 0.5), ("top_p", "1e-1", 0.1), ("max_tokens", "12", 12), ("seed", "-7", -7)],
)
@pytest.mark.parametrize("place", ["{}", "parameters:\n      {}"])
def test_variables_hold_numbers_of_generation_parameters_too(
    file: Path, key: str, text: str, value: float, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X", text)
    settings = read(file, f"llms:\n  a:\n    provider: scripted\n    {place.format(f'{key}: ${{X}}')}\n")
    registry = LLMRegistry.from_config(settings.llms)
    assert registry.configured("a").parameters.set_fields()[key] == value


@pytest.mark.parametrize("text", ["012", "1_000", "0x10", "many", "1.5", ""])
def test_a_variable_that_is_no_number_is_named(file: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X", text)
    told = faults(file, "llms:\n  a:\n    provider: scripted\n    max_tokens: '${X}'\n    timeout: no\n")
    assert len(told) == 2
    assert "max_tokens" in told[0]


def test_faults_of_parameters_in_both_places_are_told_once_each(file: Path) -> None:
    told = faults(
        file, "llms:\n  a:\n    provider: scripted\n    max_tokens: x\n    parameters:\n      top_p: y\n      seed: z\n"
    )
    assert [fault.partition(":")[0] for fault in told] == ["4", "6", "7"]


@pytest.mark.parametrize("text", ["${X", "${}", "${X-y}", "${X:y}", "${1}", "${X }", "${UNSET:-${X}}", "${X:?no}"])
def test_what_is_no_reference_is_named_and_not_taken_literally(
    file: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X", "set")
    (fault,) = faults(file, f"llms:\n  a:\n    provider: scripted\n    reply: '{text}'\n")
    assert fault.startswith("4: llms.a.reply: ")
    assert "${NAME:-DEFAULT}" in fault


def test_a_value_of_the_environment_is_not_repeated(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "sk-hush'hush")
    text = "log_level: ${SECRET}\ndefault: ${SECRET}\nllms:\n  a:\n    provider: scripted\n    timeout: ${SECRET}\n"
    told = faults(file, text)
    assert len(told) == 3
    assert not any("hush" in message for message in told)
    assert all("${SECRET}" in message for message in told)


def test_a_value_of_the_environment_is_not_repeated_where_a_message_cuts_it_off(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "sk-" + "hush" * 50)
    text = "default: ${SECRET}\npreload: [a, 'x${SECRET}']\nllms:\n  a: {provider: scripted}\n"
    told = faults(file, text)
    assert len(told) == 2
    assert not any("hush" in message for message in told)
    assert all("${SECRET}" in message for message in told)


def test_a_variable_that_is_no_text_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYTES", os.fsdecode(b"sk-\xff"))
    (fault,) = faults(file, "llms:\n  a:\n    provider: scripted\n    reply: ${BYTES}\n")
    assert fault == "4: llms.a.reply: the environment variable BYTES does not hold UTF-8"


IN_KEYS = {
    "a caller": ("a: {provider: huggingface, callers: {'${X}': {max_queue: 1}}}", "llms.a.callers.${X}"),
    "an LLM": ("'${X}': {provider: scripted}", "llms.${X}"),
    "no reference": ("a: {provider: huggingface, callers: {'a${b': {max_queue: 1}}}", "llms.a.callers.a${b"),
}


@pytest.mark.parametrize(("line", "path"), IN_KEYS.values(), ids=IN_KEYS)
def test_a_reference_in_a_key_is_named_and_not_taken_literally(
    file: Path, line: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X", "set")
    (fault,) = faults(file, f"llms:\n  {line}\n")
    assert fault.startswith(f"2: {path}: ")
    assert "not in a key" in fault


def test_a_fault_that_shows_later_is_told_though_the_file_has_changed_since(file: Path) -> None:
    fault = ConfigurationError("listen: cannot listen", field="listen")
    for text, place in [("x: 1\nlisten: a\n", f"{file}:2: "), ("[", f"{file}: "), (None, f"{file}: ")]:
        file.unlink() if text is None else file.write_text(text)
        assert locate(fault, file).message == f"{place}listen: cannot listen"


def test_a_file_without_end_is_refused_and_a_pipe_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="larger than"):
        load_settings(Path("/dev/zero"), {})
    os.mkfifo(pipe := tmp_path / "pipe")
    text = "grace: 3\nllms: {a: {provider: scripted}}\n"
    threading.Thread(target=pipe.write_text, args=(text,), daemon=True).start()
    assert load_settings(pipe, {}).grace == 3


HOSTILE = {
    "control characters in a key": 'llms:\n  a: {provider: scripted}\n"\\e[31m\\nerror: x": 1\n',
    "null character": "llms:\n  a: {provider: scripted}\nx: \0\n",
    "escape of a null character": 'llms:\n  a: {provider: scripted}\ntokens: "a\\0b"\n',
    "escape of half a character": 'llms:\n  a: {provider: scripted}\ntokens: "\\ud83d"\n',
    "second document": "llms:\n  a: {provider: scripted}\n---\nllms: {}\n",
    "merge": "llms:\n  a: {provider: scripted}\n<<: {grace: 1}\n",
    "list as a key": "llms:\n  a: {provider: scripted}\n? [a]\n: b\n",
    "tag": "llms:\n  a: {provider: scripted}\ngrace: !!timestamp 2026-11-27\n",
    "set": "llms:\n  a: {provider: scripted}\npreload: !!set {a}\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(file: Path, text: str) -> None:
    (fault,) = faults(file, text)
    assert fault.startswith("3: ")
    assert fault.isprintable()


def test_llms_whose_names_hold_dots_are_told_apart(file: Path) -> None:
    lines = [
        "a.b: {provider: scripted}",
        "a: {provider: scripted, b: 1}",
        "a.b.c: {provider: scripted, max_retries: -1}",
    ]
    told = faults(file, "llms:\n" + "".join(f"  {line}\n" for line in lines))
    assert ["llms.a: b is not a known parameter" in told[0], "llms.a.b.c: max_retries" in told[1]] == [True, True]
    assert len(told) == 2


def test_a_file_without_faults_is_read_as_before(file: Path) -> None:
    lines = [
        "grace: 90s",
        "max_loaded: '3'",
        "reflection: yes",
        "insecure: 'off'",
        "memory_budget: 1GiB",
        "preload: []",
    ]
    settings = read(file, "\n".join([*lines, "llms: {a: {provider: scripted}}"]))
    values: dict[str, Any] = {
        "grace": 90,
        "max_loaded": 3,
        "reflection": True,
        "insecure": False,
        "memory_budget": 1 << 30,
        "preload": (),
    }
    assert {key: getattr(settings, key) for key in values} == values
