"""The synchronous methods: inside a running loop, left early, interrupted, after a fork, at exit."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from abstractllm import AbstractLLMError, Finished, RateLimitedError, Started, create_llm
from abstractllm.testing import ScriptedProvider
from tests.waiting import wait_until


def test_all_synchronous_methods_answer():
    with create_llm("scripted", reply="a b c") as llm:
        assert llm.generate("Hi") == "a b c"
        assert list(llm.generate("Hi", stream=True)) == ["a", " b", " c"]
        assert llm.complete("Hi").text == "a b c"
        kinds = [type(event) for event in llm.stream("Hi")]
        assert (kinds[0], kinds[-1]) == (Started, Finished)
        assert llm.count_tokens("one two") == 2
        assert llm.get_capabilities()["streaming"] is True


async def test_they_work_inside_a_running_event_loop():
    with create_llm("scripted", reply="a b") as llm:
        assert llm.generate("Hi") == "a b"
        assert list(llm.generate("Hi", stream=True)) == ["a", " b"]


def test_one_llm_serves_several_event_loops_one_after_the_other():
    llm = create_llm("scripted", reply="a b")
    assert [asyncio.run(llm.generate_async("Hi")) for _ in range(3)] == ["a b"] * 3


def test_leaving_a_stream_releases_the_provider():
    llm = ScriptedProvider({"script": [{"text": "a"}, {"delay": 60}]})
    for _ in llm.generate("Hi", stream=True):
        break
    wait_until(lambda: llm.released == 1 and llm.running == 0)


def test_an_error_reaches_the_caller_of_a_call_and_of_a_stream():
    llm = ScriptedProvider({"script": [{"text": "a"}, {"error": "RATE_LIMITED", "retry_after": 2}]})
    with pytest.raises(RateLimitedError):
        llm.generate("Hi")
    stream = llm.generate("Hi", stream=True)
    assert next(stream) == "a"
    with pytest.raises(RateLimitedError) as caught:
        next(stream)
    assert caught.value.retry_after == 2


def test_a_bad_argument_is_refused_before_the_stream_is_read():
    with pytest.raises(AbstractLLMError, match="temperature"):
        create_llm("scripted").generate("Hi", stream=True, temperature=7)


def test_a_slow_reader_loses_nothing():
    words = [f" {n}" for n in range(1000)]
    llm = create_llm("scripted", reply="".join(words))
    stream = llm.generate("Hi", stream=True)
    first = next(stream)
    time.sleep(0.1)
    assert [first, *stream] == words


def test_many_threads_share_one_llm():
    llm = create_llm("scripted", reply="a b c", delay=0.001)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(llm.generate("Hi"))) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == ["a b c"] * 32


INTERRUPTED = """
from abstractllm.testing import ScriptedProvider
llm = ScriptedProvider({"script": [{"text": "a"}, {"delay": 60}]})
print("ready", flush=True)
try:
    llm.generate("Hi")
except KeyboardInterrupt:
    import time
    for _ in range(1000):
        if llm.released: break
        time.sleep(0.005)
    print("released", llm.released, flush=True)
"""


def test_an_interrupt_cancels_the_call():
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "released 1\n"
    assert process.returncode == 0


FORKED = """
import os, warnings
warnings.simplefilter("ignore")
from abstractllm import create_llm
llm = create_llm("scripted", reply="a b")
assert llm.generate("Hi") == "a b"
child = os.fork()
if child == 0:
    print(llm.generate("Hi"), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_a_loop_of_its_own():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("a b\n", 0), done.stderr


def test_the_process_ends_while_a_stream_is_open():
    code = (
        "from abstractllm.testing import ScriptedProvider\n"
        "stream = ScriptedProvider({'script': [{'text': 'a'}, {'delay': 60}]}).generate('Hi', stream=True)\n"
        "print(next(stream))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("a\n", "", 0)
