"""The dangers of which a server warns when it starts."""

import logging
from pathlib import Path
from typing import Any

import pytest

from abstractllm_server.security.access_control import AccessControl
from abstractllm_server.security.warnings import warn_of_file
from abstractllm_server.settings import ServerSettings
from tests.server.certificates import Authority
from tests.server.test_auth import line

OPEN, CLEAR = "nobody is asked for credentials", "without TLS"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(line("good", "inference"))
    file.chmod(0o600)
    return file


def warnings(caplog: pytest.LogCaptureFixture, **settings: Any) -> list[str]:
    """The warnings of a server with these settings."""
    checked = ServerSettings(llms={"echo": {}}, **settings)
    checked.check()
    caplog.clear()
    AccessControl(checked, ())
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    messages = [record.getMessage() for record in caplog.records]
    assert all(message.startswith("SECURITY: ") for message in messages)
    return messages


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.168.0.1:1", "example.com:1"])
def test_an_address_that_others_reach_is_warned_of(listen: str, tokens: Path, caplog: pytest.LogCaptureFixture) -> None:
    without, clear = warnings(caplog, listen=listen, insecure=True)
    assert OPEN in without
    assert "prompts and answers travel in the clear" in clear
    (clear,) = warnings(caplog, listen=listen, tokens=tokens)
    assert "tokens, prompts and answers travel in the clear" in clear
    assert listen in clear


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "[::1]:0", "unix:///run/x.sock"])
def test_an_address_of_this_machine_is_not_warned_of(
    listen: str, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert warnings(caplog, listen=listen) == warnings(caplog, listen=listen, tokens=tokens) == []


def test_files_of_tls_that_others_read_or_write_are_warned_of(
    tmp_path: Path, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Authority(tmp_path)
    pair = root.sign("server")
    for path in (pair.certificate, pair.key, root.pair.certificate):
        path.chmod(0o600)
    tls = {"certificate": pair.certificate, "key": pair.key, "client_ca": root.pair.certificate}
    settings = {"listen": "0.0.0.0:0", "tls": tls, "tokens": tokens}
    assert warnings(caplog, **settings) == []
    pair.key.chmod(0o644)
    (message,) = warnings(caplog, **settings)
    assert f"the key {pair.key} can be read by every user" in message
    pair.key.chmod(0o600)
    root.pair.certificate.chmod(0o666)
    (message,) = warnings(caplog, **settings)
    assert f"{root.pair.certificate} can be written by other users" in message


def test_tls_alone_does_not_ask_who_calls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = Authority(tmp_path).sign("server")
    pair.key.chmod(0o600)
    tls = {"certificate": pair.certificate, "key": pair.key}
    (message,) = warnings(caplog, listen="0.0.0.0:0", tls=tls, insecure=True)
    assert OPEN in message


def test_a_configuration_that_others_can_write_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "llms.yaml"
    file.write_text("llms: {}\n")
    file.chmod(0o644)
    warn_of_file(file)
    assert caplog.records == []
    file.chmod(0o664)
    warn_of_file(file)
    assert f"SECURITY: {file} can be written by other users" in caplog.text
