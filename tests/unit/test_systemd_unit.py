"""The systemd unit: it says what the server does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from abstractllm_server.lifecycle.signals import CLOSING_SECONDS
from abstractllm_server.settings import ServerSettings

UNIT = Path(__file__).resolve().parents[2] / "deploy/systemd/abstractllm.service"


def directives() -> dict[str, list[str]]:
    """The values of each directive, whatever section it stands in."""
    values: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            values[name].append(value)
    return values


def test_unit_fits_the_server() -> None:
    unit = directives()
    assert unit["Type"] == ["notify"]
    (start,) = unit["ExecStart"]
    assert start.endswith("abstractllm serve --config /etc/abstractllm/llms.yaml")
    assert unit["ExecReload"] == [start.replace("serve", "serve --check"), "/bin/kill -HUP $MAINPID"]
    assert float(unit["TimeoutStopSec"][0]) > ServerSettings.model_fields["grace"].default + CLOSING_SECONDS
    # An address or a file that is not there yet has the status of a fault in the configuration.
    assert (unit["Restart"], unit["RestartPreventExitStatus"], unit["StartLimitIntervalSec"]) == (["always"], [], ["0"])
    assert unit["OOMPolicy"] == ["continue"]


def test_unit_runs_as_a_user_that_it_says_how_to_make() -> None:
    # systemd starts no service with DynamicUser whose name is that of a group, as that of the files has to be.
    unit = directives()
    assert "DynamicUser" not in unit
    (user,) = unit["User"]
    (command,) = (line for line in UNIT.read_text().splitlines() if line.startswith("#   useradd"))
    assert command.split()[-1] == user
    assert f"--home-dir {unit['Environment'][0].removeprefix('HOME=')}" in command
    assert f"-m 0640 -g {user} llms.yaml" in UNIT.read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/opt/abstractllm/bin/abstractllm", sys.executable)
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert ours == []
