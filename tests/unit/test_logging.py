"""The log: outcomes always, content only on request, silence until a program configures logging."""

import logging
import subprocess
import sys

import pytest

from abstractllm import RateLimitedError, create_llm


def test_a_request_and_its_outcome_are_logged_without_their_content(caplog):
    caplog.set_level(logging.DEBUG, logger="abstractllm")
    create_llm("scripted", reply="secret answer").generate("secret prompt", request_id="r1", labels={"team": "blue"})
    assert "request_id=r1" in caplog.text
    assert "team=blue" in caplog.text
    assert "finish_reason=stop input_tokens=2 output_tokens=2" in caplog.text
    assert "secret" not in caplog.text


def test_content_is_logged_when_asked_for(caplog):
    caplog.set_level(logging.DEBUG, logger="abstractllm")
    create_llm("scripted", reply="my answer", log_content=True).generate("my prompt")
    assert "my prompt" in caplog.text
    assert "my answer" in caplog.text


def test_a_failure_is_a_warning_with_its_reason(caplog):
    llm = create_llm("scripted", script=[{"error": "RATE_LIMITED"}])
    with pytest.raises(RateLimitedError):
        llm.generate("Hi")
    assert [(record.levelname, "error=RATE_LIMITED" in record.message) for record in caplog.records] == [
        ("WARNING", True)
    ]


def test_the_library_is_silent_until_logging_is_set_up():
    code = (
        "from abstractllm import create_llm\n"
        "try: create_llm('scripted', script=[{'error': 'RATE_LIMITED'}]).generate('Hi')\n"
        "except Exception: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    setup = "from abstractllm.utils.logging import setup_logging; setup_logging()\n"
    done = subprocess.run([sys.executable, "-c", setup + code], capture_output=True, text=True, timeout=60, check=True)
    assert "error=RATE_LIMITED" in done.stderr
