"""Strangers who connect to a server with TLS cannot fill its log."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.server.certificates import Authority
from tests.server.support import HANG
from tests.waiting import wait_until

STRANGERS = 400


def test_failed_handshakes_cannot_fill_the_log_and_are_counted(tmp_path: Path) -> None:
    pair = Authority(tmp_path).sign("localhost")
    file, log = tmp_path / "llms.yaml", tmp_path / "log"
    file.write_text(
        f"listen: 127.0.0.1:0\ntls: {{certificate: {pair.certificate}, key: {pair.key}}}\n"
        "llms:\n  echo: {provider: scripted}\n"
    )
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--config", file]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    with log.open("wb") as output, subprocess.Popen(command, stderr=output, env=environment) as server:
        try:
            wait_until(lambda: server.poll() is not None or "listening on" in log.read_text())
            match = re.search(r"listening on \S+:(\d+)", log.read_text())
            assert match, log.read_text()

            def connect(strangers: int) -> None:
                with contextlib.ExitStack() as stack:
                    sockets = [
                        stack.enter_context(socket.create_connection(("127.0.0.1", int(match[1]))))
                        for _ in range(strangers)
                    ]
                    # All at once: one after the other they may be slower than the limit on a busy machine.
                    for stranger in sockets:
                        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    for stranger in sockets:
                        stranger.settimeout(HANG)
                        with contextlib.suppress(ConnectionError):
                            while stranger.recv(4096):
                                pass

            connect(STRANGERS)

            def counted() -> bool:
                connect(1)
                return "lines were left out" in log.read_text()

            wait_until(counted)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(HANG)
    lines = [line for line in log.read_text().splitlines() if " abstractllm.output " in line]
    assert any("Handshake failed" in line for line in lines)
    left_out = sum(int(count) for count in re.findall(r" (\d+) lines were left out", log.read_text()))
    assert left_out > 0 and len(lines) < STRANGERS
