"""LLMs on Ray Serve that come, change and go while a server runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from abstractllm_client import ProviderUnavailableError, RemoteLLM
from tests.waiting import LONGEST_WAIT, wait_until

pytestmark = pytest.mark.timeout(400)


def test_llms_come_and_go_by_reloads_and_the_server_still_drains(ray_address: str, tmp_path: Path) -> None:
    file, log = tmp_path / "llms.yaml", tmp_path / "log"
    plain = {"provider": "scripted"}
    on_ray = {"provider": "ray", "serves": "scripted", "ray_address": ray_address, "num_cpus": 0.1}
    on_ray |= {"application": "comes-and-goes", "drain_timeout": 1}
    on_ray |= {"autoscaling": {"max_replicas": 2}}

    def write(**llms: Any) -> None:
        file.write_text(json.dumps({"listen": "127.0.0.1:0", "llms": llms}))

    def reload(outcome: str, **llms: Any) -> None:
        write(**llms)
        count = log.read_text().count(outcome)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: log.read_text().count(outcome) > count or process.poll() is not None, LONGEST_WAIT)
        assert process.poll() is None, log.read_text()

    def ask(llm: str) -> str:
        with RemoteLLM(address, llm=llm, timeout=LONGEST_WAIT) as client:
            return str(client.complete(f"hello {llm}").text)

    write(plain=plain, remote=on_ray | {"ray_address": "127.0.0.1:1"})
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--config", str(file)]
    with log.open("w") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            wait_until(lambda: "listening on " in log.read_text() or process.poll() is not None, LONGEST_WAIT)
            assert process.poll() is None, log.read_text()
            address = log.read_text().split("listening on ")[1].split()[0]
            with pytest.raises(ProviderUnavailableError, match="ray_address: "):
                ask("remote")
            reload("changed remote", plain=plain, remote=on_ray)
            wait_until(lambda: "LLM remote: deployed" in log.read_text(), LONGEST_WAIT)
            assert ask("remote") == "hello remote"

            reload("llms.remote: ray_address: ", plain=plain, remote=on_ray | {"ray_address": "127.0.0.1:1"})
            assert "nothing has changed" in log.read_text()
            reload("changed remote", plain=plain, remote=on_ray | {"system_prompt": "Be kind."})
            with RemoteLLM(address, llm="remote") as client:
                assert client.get_config()["system_prompt"] == "Be kind."
            reload("removed remote", plain=plain)
            wait_until(lambda: "is closed" in log.read_text(), LONGEST_WAIT)
            assert ask("plain") == "hello plain"
            reload("added remote", plain=plain, remote=on_ray)
            assert ask("remote") == "hello remote"
            reload("removed remote", plain=plain)
            # Nothing of it goes on: it would report the number of requests every two seconds, and fail.
            time.sleep(5)
            assert "Traceback" not in log.read_text()

            with RemoteLLM(address, llm="plain", timeout=LONGEST_WAIT) as client:
                stream = client.generate("word " * 10, stream=True, provider_options={"delay": 0.2})
                pieces = [next(stream)]
                process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                pieces += stream
            assert "".join(pieces).split() == ["word"] * 10
            assert time.monotonic() - began > 0.5
            assert process.wait(60) == 0
        finally:
            process.kill()
