"""What the clients' tests share: a server with the demo model, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def demo_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose default LLM is the demo model."""
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--port", "0"]
    with log.open("w") as output, subprocess.Popen(command, stderr=output) as server:
        try:
            while not (found := re.search(r"listening on (\S+)", log.read_text())):
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
            yield found[1]
        finally:
            server.terminate()
            server.wait(60)
