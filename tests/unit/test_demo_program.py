"""The program behind `make run`: the port that it serves on."""

import subprocess
import sys

import pytest

from tools import demo


def test_port_0_is_a_free_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def start(words: list[str], **_options: object) -> subprocess.Popen[bytes]:
        started.append(words)
        return process([sys.executable, "-c", "import time; time.sleep(60)"])

    process = subprocess.Popen
    monkeypatch.setattr(demo.subprocess, "Popen", start)
    monkeypatch.setattr(demo, "wait_until_ready", lambda *_: None)
    with demo.serving(0) as (_, address):
        port = started[0][started[0].index("--port") + 1]
        assert port != "0"
        assert address == f"127.0.0.1:{port}"
