"""The command against servers that ask who calls, over TLS and mutual TLS."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from abstractllm_cli._server import _is_on_this_machine
from tests.server.certificates import Authority, Pair, openssl
from tests.server.test_auth import line
from tests.server.test_cli import run, serve

TOKEN, READER = "admin-token-71c2", "reader-token-0b93"


@dataclass(frozen=True)
class Files:
    """The files of the servers and the callers."""

    folder: Path
    roots: Path
    server: Pair
    operator: Pair
    stranger: Pair

    def trust(self) -> tuple[str, ...]:
        return "--root-certificates", str(self.roots)

    def as_caller(self, pair: Pair) -> tuple[str, ...]:
        return "--certificate", str(pair.certificate), "--key", str(pair.key)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    root = Authority(folder)
    (folder / "tokens").write_text(line(TOKEN, "admin") + line(READER, "inference"))
    (folder / "token").write_text(f"{TOKEN}\n")
    return Files(folder, root.pair.certificate, root.sign("server"), root.sign("operator"), root.sign("stranger"))


def configuration(files: Files, name: str, **settings: object) -> str:
    llms = {
        "echo": {"provider": "scripted"},
        "hub": {"provider": "huggingface", "model": "org/model", "cache_dir": str(files.folder / "cache")},
    }
    path = files.folder / f"{name}.yaml"
    path.write_text(json.dumps({"default": "echo", "llms": llms, **settings}))
    return str(path)


def paths_of(pair: Pair) -> dict[str, object]:
    return {"certificate": str(pair.certificate), "key": str(pair.key)}


@pytest.fixture(scope="module")
def with_tokens(files: Files) -> Iterator[str]:
    """The address of a server with TLS that asks for tokens."""
    settings = {"tls": paths_of(files.server), "tokens": str(files.folder / "tokens")}
    with serve("--config", configuration(files, "tokens", **settings)) as (address, _):
        yield address


@pytest.fixture(scope="module")
def mutual(files: Files) -> Iterator[str]:
    """The address of a server that asks for certificates."""
    tls = paths_of(files.server) | {"client_ca": str(files.roots), "subjects": {"operator": "admin"}}
    with serve("--config", configuration(files, "mutual", tls=tls)) as (address, _):
        yield address


@pytest.fixture(scope="module")
def plain(files: Files) -> Iterator[str]:
    """The address of a server that asks for tokens, without TLS."""
    with serve("--config", configuration(files, "plain", tokens=str(files.folder / "tokens"))) as (address, _):
        yield address


COMMANDS = (
    (("generate", "hello there"), "hello there\n"),
    (("chat",), "hello\n"),
    (("llms",), "echo*\tscripted\t"),
    (("models", "list", "--llm", "hub"), ""),
    (("models", "clear", "--all", "--dry-run", "--llm", "hub"), ""),
    (("config", "get"), "model: script\n"),
    (("config", "set", "temperature=0.5", "--dry-run"), "model: script\n"),
)


@pytest.mark.parametrize(("command", "said"), COMMANDS, ids=[" ".join(command) for command, _ in COMMANDS])
@pytest.mark.parametrize("kind", ["token", "certificate"])
def test_every_command_reaches_a_server_that_asks_who_calls(
    request: pytest.FixtureRequest, files: Files, kind: str, command: tuple[str, ...], said: str
) -> None:
    if kind == "token":
        to = ("--address", request.getfixturevalue("with_tokens"), "--token-file", str(files.folder / "token"))
    else:
        to = ("--address", request.getfixturevalue("mutual"), *files.as_caller(files.operator))
    done = run(*command, *to, *files.trust(), stdin="hello\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(said)


def test_a_token_comes_from_an_option_a_file_or_the_environment(
    files: Files, with_tokens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = ("--address", with_tokens, *files.trust())
    assert run("config", "get", *to, "--token", TOKEN).returncode == 0
    monkeypatch.setenv("ABSTRACTLLM_TOKEN", READER)
    assert run("generate", *to, "hello").stdout == "hello\n"
    refused = run("config", "get", *to)
    assert (refused.returncode, refused.stderr.split(": ")[:2]) == (1, ["error", "NOT_ALLOWED"])
    # What the command line says wins.
    assert run("config", "get", *to, "--token-file", str(files.folder / "token")).returncode == 0
    assert run("config", "get", *to, "--token", TOKEN).returncode == 0
    # A token that is only there for other commands is no mistake.
    assert run("llms").returncode == 0


def test_a_caller_without_what_is_asked_for_is_refused(files: Files, with_tokens: str, mutual: str) -> None:
    short = ("--timeout", "3")
    nameless = run("generate", "--address", with_tokens, *files.trust(), "hello", *short)
    assert nameless.stderr.split(": ")[:2] == ["error", "UNAUTHENTICATED"]
    stranger = run("generate", "--address", mutual, *files.trust(), *files.as_caller(files.stranger), "hello", *short)
    assert stranger.stderr.split(": ")[:2] == ["error", "NOT_ALLOWED"]
    for to in ((mutual, *files.trust()), (with_tokens, "--tls", "--token", TOKEN), (with_tokens, "--token", TOKEN)):
        # No certificate, a root that is not trusted, no TLS: there is no connection.
        done = run("generate", "--address", *to, "hello", *short)
        assert (done.returncode, done.stdout) == (1, "")
        assert "PROVIDER_UNAVAILABLE" in done.stderr or "TIMEOUT" in done.stderr
        assert TOKEN not in done.stderr


def test_a_token_in_the_clear_is_warned_of_beyond_this_machine(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_grpc_proxy", "0.0.0.0")
    loopback = run("generate", "--address", plain, "--token", READER, "hello")
    assert (loopback.stdout, loopback.stderr) == ("hello\n", "")
    # No loopback address, and yet this machine's.
    address = f"0.0.0.0:{plain.rpartition(':')[2]}"
    beyond = run("generate", "--address", address, "--token", READER, "hello")
    assert beyond.stdout == "hello\n"
    assert beyond.stderr.startswith(f"warning: the token goes to {address} in the clear")
    assert READER not in beyond.stderr


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.0.1", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("ipv6:[::1]:50051", True),
        ("ipv4:127.0.0.1:50051", True),
        ("dns:///localhost:50051", True),
        ("unix:///run/abstractllm.sock", True),
        ("unix:relative.sock", True),
        ("unix-abstract:name", True),
        ("10.0.0.1:50051", False),
        ("[2001:db8::1]:50051", False),
        ("dns:///llm.example:50051", False),
        ("localhost.example:50051", False),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
        ("127.0.0.1.example:50051", False),
    ],
)
def test_which_addresses_are_this_machines(address: str, near: bool) -> None:
    assert _is_on_this_machine(address) == near


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr.replace("\n", " ")


def test_options_that_make_no_sense_together_are_named(files: Files) -> None:
    certificate, key = str(files.operator.certificate), str(files.operator.key)
    to = ("generate", "hi", "--address", "127.0.0.1:1")
    assert "--certificate: its key is missing" in refusal(run(*to, "--certificate", certificate))
    assert "--key: its certificate is missing" in refusal(run(*to, "--key", key))
    both = refusal(run(*to, "--token", "a", "--token-file", str(files.folder / "token")))
    assert "--token: the token is in --token-file" in both
    for option in ("--tls", f"--token={TOKEN}", f"--token-file={certificate}", f"--root-certificates={certificate}"):
        assert f"{option.partition('=')[0]}: only a server needs this" in refusal(run("llms", option))
        assert f"{option.partition('=')[0]}: only a server" in refusal(run("models", "list", option))


def test_files_that_cannot_be_used_are_named_with_their_option(files: Files, tmp_path: Path) -> None:
    to = ("generate", "hi", "--address", "127.0.0.1:1")
    garbage, secret, pipe = tmp_path / "garbage", tmp_path / "secret.key", tmp_path / "pipe"
    garbage.write_text("no PEM\n two lines")
    openssl("ec", "-in", files.operator.key, "-aes128", "-passout", "pass:word", "-out", secret)
    os.mkfifo(pipe)
    certificate = ("--certificate", str(files.operator.certificate))
    for arguments, said in (
        (("--root-certificates", str(garbage)), "--root-certificates: holds no certificates in PEM"),
        (("--root-certificates", str(tmp_path / "none")), "--root-certificates': file"),
        (("--root-certificates", str(pipe)), "--root-certificates: must be a file"),
        (("--certificate", str(garbage), "--key", str(files.operator.key)), "--certificate: holds no certificate"),
        ((*certificate, "--key", str(garbage)), "--key: holds no key in PEM"),
        ((*certificate, "--key", str(secret)), "--key: holds no key in PEM, without a password"),
        ((*certificate, "--key", str(files.stranger.key)), "--key: holds no key in PEM"),
        (("--token-file", str(garbage)), "--token-file: a token is one line of printable ASCII"),
        (("--token-file", os.devnull), "--token-file: a token is one line"),
        (("--token", "käse"), "--token: a token is one line"),
        (("--token", ""), "--token: a token is one line"),
    ):
        assert said in refusal(run(*to, *arguments)), arguments


def test_a_bad_token_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABSTRACTLLM_TOKEN", "two\nlines")
    said = refusal(run("generate", "hi", "--address", "127.0.0.1:1"))
    assert "ABSTRACTLLM_TOKEN: a token is one line" in said
    assert "lines" not in said.split("ABSTRACTLLM_TOKEN")[1]
