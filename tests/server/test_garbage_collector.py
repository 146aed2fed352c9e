"""The garbage collector holds up no call for long: it passes over what the server has loaded."""

import subprocess
import sys
from pathlib import Path

from tests.server.support import HANG

WATCHED = """
import gc, os, pathlib, sys, threading, time

def watch():
    while not gc.get_freeze_count():
        time.sleep(0.01)
    time.sleep(0.2)
    pathlib.Path(sys.argv[1]).write_text(f"{gc.get_freeze_count()} {len(gc.get_objects())}")
    os._exit(0)

threading.Thread(target=watch, daemon=True).start()
from abstractllm_server.app import run
from abstractllm_server.settings import ServerSettings
run(ServerSettings(listen="127.0.0.1:0", llms={"echo": {"provider": "scripted"}}))
"""


def test_server_has_the_collector_pass_over_what_it_has_loaded(tmp_path: Path) -> None:
    report = tmp_path / "report"
    result = subprocess.run([sys.executable, "-c", WATCHED, report], capture_output=True, timeout=HANG, check=False)
    assert result.returncode == 0, result.stderr
    frozen, watched = map(int, report.read_text().split())
    assert frozen > 10 * watched
