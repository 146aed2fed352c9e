"""The file of tokens: what is refused in it, what is warned of, and the command that writes it."""

import json
import logging
import multiprocessing
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from abstractllm.errors import AuthenticationError, ConfigurationError
from abstractllm_client import AsyncRemoteLLM
from abstractllm_client import AuthenticationError as RefusedByServerError
from abstractllm_server.security.credentials import TokenFile
from abstractllm_server.security.identity import Identity
from abstractllm_server.security.tls import Certificates
from abstractllm_server.security.token_editor import TokenEditor
from abstractllm_server.security.token_entries import digest_of
from abstractllm_server.settings import Role
from tests.server.support import serving
from tests.server.test_auth import line
from tests.waiting import until


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def put(file: Path, text: str) -> None:
    file.write_text(text)


def wrong(file: Path, text: str) -> str:
    """The error that a file causes; none of its hashes is in it."""
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        TokenFile(file)
    return caught.value.message


@pytest.mark.parametrize(
    "second", [line("one", "admin"), line("one", "inference"), line("one", "admin").upper().replace("ADMIN", "admin")]
)
def test_one_token_on_two_lines_is_refused_by_line(file: Path, second: str) -> None:
    message = wrong(file, f"# tokens\n{line('one', 'inference', 'x')}\n{line('two', 'admin')}{second}")
    assert f"{file}:5: is the token of line 2 again" in message


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        (f"{digest_of('')} admin", "the SHA-256 of nothing"),
        (f"{digest_of('x')} admin expires=soon", "2027-01-31"),
        (f"{digest_of('x')} admin expires=99999-01-01", "2027-01-31"),
        (f"{digest_of('x')} admin expires=", "expires="),
        (f"{digest_of('x')} admin operator expires=2027-01-31", "expires="),
        (f"{digest_of('x')} admin Expires=2027-01-31", "expires="),
        (f"{digest_of('x')} admin \x1b[31mred", "printable"),
        (f"{digest_of('x')} admin {'x' * 129}", "128"),
        (f"{digest_of('x')} Admin", "a role (inference, admin)"),
        (f"none\n{digest_of('x')} admin", "SHA-256"),
    ],
)
def test_a_line_that_means_nothing_is_named(file: Path, entry: str, part: str) -> None:
    message = wrong(file, f"{entry}\n")
    assert f"{file}:1: " in message
    assert part in message
    assert message.isprintable()


@pytest.mark.parametrize("beginning", ["", "# of this machine\r\n"])
def test_a_file_of_an_editor_that_marks_utf_8_is_read_and_changed(file: Path, beginning: str) -> None:
    file.write_bytes(f"\ufeff{beginning}{line('one', 'inference', 'one')}".replace("\n", "\r\n").encode())
    identity = TokenFile(file).find("one")
    assert identity is not None
    assert identity.name == "one"
    TokenEditor(file).create(Role.ADMIN, "two")
    TokenEditor(file).revoke("one")
    assert TokenFile(file).find("one") is None
    assert [entry.label for entry in TokenEditor(file).entries()] == ["two"]


@pytest.mark.parametrize("kind", ["pipe", "folder", "without end"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero") if kind == "without end" else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(ConfigurationError, match=f"tokens: {path} cannot be read: "):
        TokenFile(path)
    with pytest.raises(ConfigurationError, match=f"tls: .*{path}.* cannot be used: .*not a regular file"):
        Certificates(path, path, None)


@pytest.mark.parametrize("text", ["", "\n\n", "# all gone\n"])
async def test_an_emptied_file_changes_nothing_and_is_logged(
    file: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(file, line("good", "inference"))
    async with serving(tokens=file) as running:
        put(file, text)
        await until(lambda: "lock everybody out" in caplog.text)
        async with AsyncRemoteLLM(running.server.address, token="good") as llm:
            assert await llm.generate("hi there") == "hi there"


def test_a_server_does_not_start_with_an_empty_file(file: Path) -> None:
    assert "holds no token" in wrong(file, "")


async def test_a_file_that_says_so_has_no_tokens(file: Path) -> None:
    put(file, line("good", "inference"))
    async with serving(tokens=file) as running:
        put(file, "none\n")
        await until(lambda: running.server._access.tokens.find("good") is None)  # type: ignore[union-attr]
        async with AsyncRemoteLLM(running.server.address, token="good") as llm:
            with pytest.raises(RefusedByServerError):
                await llm.generate("hi there")


@pytest.mark.parametrize("mode", [0o666, 0o622, 0o660, 0o602])
def test_a_file_that_others_can_write_is_warned_of(file: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(line("good", "inference"))
    file.chmod(mode)
    tokens = TokenFile(file)
    tokens.reload()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all(record.getMessage().startswith(f"SECURITY: {file} can be written by other") for record in warnings)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400])
def test_a_file_of_its_owner_alone_is_not_warned_of(file: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(line("good", "inference"))
    file.chmod(mode)
    TokenFile(file)
    assert caplog.records == []


def test_a_file_in_a_folder_that_everybody_can_write_is_warned_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(line("good", "inference"))
    file.chmod(0o600)
    file.parent.chmod(0o777)
    TokenFile(file)
    assert "SECURITY" in caplog.text


def test_a_token_expires(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(f"{digest_of('x')} admin expires=2030-01-01T00:00:00Z night shift\n")
    tokens = TokenFile(file)
    assert tokens.find("x") == Identity("night shift", Role.ADMIN)
    monkeypatch.setattr(time, "time", lambda: 1_893_456_000.0)
    with pytest.raises(AuthenticationError, match="expired"):
        tokens.find("x")
    assert tokens.find("y") is None


@pytest.mark.parametrize(
    "text", ["2030-01-01", "2030-01-01T00:00:00Z", "2030-01-01T02:00:00+02:00", "20300101T000000Z"]
)
def test_times_of_expiry_are_in_utc_unless_they_say_otherwise(
    file: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    file.write_text(f"{digest_of('x')} admin expires={text}\n")
    (entry,) = TokenEditor(file).entries()
    assert entry.expires_at == 1_893_456_000


def test_the_first_token_takes_the_place_of_the_word_for_none(file: Path) -> None:
    file.write_text("# of this machine\n  none  # so far\n")
    token, entry = TokenEditor(file).create(Role.ADMIN)
    assert TokenFile(file).find(token) is not None
    assert file.read_text() == f"# of this machine\n{entry.line()}\n"


def test_what_is_a_comment_stays_one(file: Path) -> None:
    file.write_bytes(f"# one, then a carriage return\r{line('old', 'admin')}".encode())
    TokenEditor(file).create(Role.INFERENCE)
    assert TokenFile(file).find("old") is None


async def test_a_created_token_is_accepted_and_a_revoked_one_refused(file: Path) -> None:
    editor = TokenEditor(file)
    kept, _ = editor.create(Role.INFERENCE, "kept")
    async with serving(tokens=file) as running:
        token, _ = editor.create(Role.INFERENCE, "guest")
        await until(lambda: running.server._access.tokens.find(token))  # type: ignore[union-attr]
        for name in ("guest", digest_of(kept)[:8]):
            editor.revoke(name)
        # The last one, too: what is left says that there are none.
        await until(lambda: running.server._access.tokens.find(kept) is None)  # type: ignore[union-attr]
        assert running.server._access.tokens.find(token) is None  # type: ignore[union-attr]
    again, _ = editor.create(Role.ADMIN)
    assert TokenFile(file).find(again) is not None


def test_the_other_lines_stay_as_they_are(file: Path) -> None:
    text = f"# the backend's\n{line('one', 'inference', 'backend  # until June')}\n  {line('two', 'admin', 'ops')}"
    file.write_text(text)
    editor = TokenEditor(file)
    _, entry = editor.create(Role.INFERENCE, "new")
    assert file.read_text() == f"{text}{entry.line()}\n"
    editor.revoke("new")
    assert file.read_text() == text
    editor.revoke("ops")
    assert file.read_text() == text[: text.index("  " + digest_of("two"))]


@pytest.mark.parametrize(("before", "after"), [(None, 0o600), (0o666, 0o600), (0o644, 0o600), (0o640, 0o640)])
def test_the_file_is_its_owner_s_alone(file: Path, before: int | None, after: int) -> None:
    if before is not None:
        file.write_text(line("one", "admin"))
        file.chmod(before)
    mask = os.umask(0)
    try:
        TokenEditor(file).create(Role.ADMIN)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == after


def test_a_link_is_followed(file: Path) -> None:
    target = file.with_name("target")
    target.write_text(line("one", "admin"))
    file.symlink_to(target)
    TokenEditor(file).create(Role.ADMIN)
    assert file.is_symlink()
    assert len(TokenEditor(target).entries()) == 2


def _create_many(file: Path, name: str) -> None:
    for index in range(12):
        TokenEditor(file).create(Role.INFERENCE, f"{name}-{index}")


def test_writers_at_the_same_time_lose_nothing(file: Path) -> None:
    writers = [
        multiprocessing.get_context("fork").Process(target=_create_many, args=(file, f"w{index}")) for index in range(4)
    ]
    for writer in writers:
        writer.start()
    versions = 0
    while any(writer.is_alive() for writer in writers):
        if file.exists():
            assert len(TokenEditor(file).entries()) >= 1  # never half a file
            versions += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert versions
    assert {entry.label for entry in TokenEditor(file).entries()} == {f"w{w}-{i}" for w in range(4) for i in range(12)}
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_failed_write_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(line("one", "admin"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        TokenEditor(file).create(Role.ADMIN)
    assert file.read_text() == line("one", "admin")
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_file_with_a_wrong_line_is_not_written(file: Path) -> None:
    file.write_text("nonsense\n")
    for change in (lambda: TokenEditor(file).create(Role.ADMIN), lambda: TokenEditor(file).revoke("x")):
        with pytest.raises(ConfigurationError, match=":1: "):
            change()
    assert file.read_text() == "nonsense\n"


@pytest.mark.parametrize(
    "label", ["a\nb", "# x", "x" * 129, " x", "expires=2030-01-01", "x expires=2030-01-01", "\u202e"]
)
def test_a_label_that_cannot_stand_in_the_file_is_refused(file: Path, label: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TokenEditor(file).create(Role.ADMIN, label)
    assert caught.value.field == "label"
    assert not file.exists()


def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        TokenEditor(pipe).create(Role.ADMIN)
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["", "nobody", "twin", digest_of("one")[:7]])
def test_a_name_that_is_of_no_token_or_of_several_is_refused(file: Path, name: str) -> None:
    text = line("one", "admin", "twin") + line("two", "admin", "twin")
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        TokenEditor(file).revoke(name)
    assert caught.value.field == "name"
    assert file.read_text() == text


def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "abstractllm_cli", "token", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_creates_lists_and_revokes(file: Path) -> None:
    created = command("create", "--file", file, "--role", "admin", "--label", "ops", "--expires", "90d")
    token = created.stdout.strip()
    assert TokenFile(file).find(token) == Identity("ops", Role.ADMIN)
    assert token not in file.read_text() + created.stderr
    listed = json.loads(command("list", "--file", file, "--json").stdout)["tokens"]
    assert [(entry["id"], entry["role"], entry["label"]) for entry in listed] == [
        (digest_of(token)[:12], "admin", "ops")
    ]
    revoked = command("revoke", "--file", file, "ops")
    assert (revoked.returncode, file.read_text()) == (0, "none\n")
    again = command("revoke", "--file", file, "ops")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("error: NOT_CONFIGURED: 'ops' is that of no token")


@pytest.mark.parametrize("arguments", [("list",), ("revoke", "ops")])
def test_the_command_names_a_file_that_is_not_there(file: Path, arguments: tuple[str, ...]) -> None:
    done = command(*arguments, "--file", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"'{file}' does not exist" in " ".join(done.stderr.split())


@pytest.mark.parametrize("expires", ["2020-01-01", "soon", "-1d", "0d", "0x1d", "9999-12-31T23:59-14:00", ""])
def test_the_command_refuses_an_expiry_that_is_none(file: Path, expires: str) -> None:
    done = command("create", "--file", file, "--role", "admin", f"--expires={expires}")
    assert (done.returncode, file.exists()) == (2, False), done.stderr
    assert "Traceback" not in done.stderr
