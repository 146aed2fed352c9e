"""Several servers in front of the same replicas: one deploys, all use, none takes them along when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2

from abstractllm.providers.ray.plain import encode
from abstractllm_api.v1 import config_pb2, generation_pb2_grpc
from abstractllm_client import RemoteLLM
from tests.ray.replicas import ECHO, echo, reports, until_true
from tests.server.support import failure_of, request, serving
from tests.waiting import LONGEST_WAIT, until, wait_until

pytestmark = pytest.mark.timeout(400)


@contextmanager
def other_server(
    folder: Path, ray_address: str, metrics: str = "", until: str = "is ready"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own that uses what is deployed, and deploys nothing."""
    file, log = folder / "llms.yaml", folder / "log"
    file.write_text(
        f"listen: 127.0.0.1:0\n{metrics}llms:\n  elsewhere: {{provider: ray, serves: scripted, deploy: false, "
        f"application: {ECHO['application']}, ray_address: '{ray_address}'}}\n"
    )
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--config", str(file)]
    with log.open("w") as output, subprocess.Popen(command, stderr=output, text=True) as process:
        try:
            wait_until(lambda: until in log.read_text() or process.poll() is not None, 200)
            text = log.read_text()
            assert process.poll() is None, text
            yield process, text.split("listening on ")[1].split()[0]
        finally:
            process.kill()


async def test_another_server_uses_the_same_replicas(ray_address: str, tmp_path: Path) -> None:
    llm = echo()
    async with serving({"echo": llm}) as server:
        await llm.load()
        (before,) = await reports(llm)
        with other_server(tmp_path, ray_address) as (process, address):

            def ask() -> str:
                with RemoteLLM(address) as client:
                    completion = client.complete("hello there")
                    assert (completion.llm, completion.provider) == ("elsewhere", "scripted")
                    return completion.text

            assert await asyncio.to_thread(ask) == "hello there"

            # What is changed at one is so at the other, and in the replica.
            change = config_pb2.LlmConfig(system_prompt="Be kind.")
            await server.config.SetConfig(config_pb2.SetConfigRequest(config=change))

            def is_changed() -> bool:
                with RemoteLLM(address) as client:
                    return client.get_config().get("system_prompt") == "Be kind."

            await until_true(lambda: asyncio.to_thread(is_changed))
            (report,) = await reports(llm)
            assert report["values"]["system_prompt"] == "Be kind."
            clear = config_pb2.SetConfigRequest(config=config_pb2.LlmConfig(), update_mask={"paths": ["system_prompt"]})
            await server.config.SetConfig(clear)

            # It is told to stop, and lets the answer that runs come to its end, however long that takes.
            async with aio.insecure_channel(address) as channel:
                stub = generation_pb2_grpc.GenerationServiceStub(channel)
                kinds = []
                async for response in stub.StreamGenerate(request("word " * 30, delay=0.2)):
                    if not kinds:
                        process.send_signal(signal.SIGTERM)
                        began = time.monotonic()
                    kinds.append(response.WhichOneof("event"))
            assert kinds[-1] == "finished"
            assert time.monotonic() - began > 4  # longer than the alarm that Ray would set
            assert await asyncio.to_thread(process.wait, 60) == 0
        (after,) = await reports(llm)
        assert after["pid"] == before["pid"]
        assert (await server.generation.Generate(request("still here"))).text == "still here"


async def test_servers_that_change_it_at_the_same_time_lose_nothing(ray_address: str) -> None:
    one, other = echo(application="changed-by-two"), echo(application="changed-by-two", delete_on_stop=True)
    async with serving({"echo": one}) as first, serving({"echo": other}) as second:
        await one.load()
        await other.load()
        etag = (await second.config.GetConfig(config_pb2.GetConfigRequest())).etag
        for number in range(5):
            change = config_pb2.LlmConfig(system_prompt=f"Be kind {number}.")
            await first.config.SetConfig(config_pb2.SetConfigRequest(config=change))
            # The second server has not heard of that yet.
            change = config_pb2.LlmConfig(parameters={"temperature": number / 10})
            answer = await second.config.SetConfig(config_pb2.SetConfigRequest(config=change))
            assert answer.config.system_prompt == f"Be kind {number}."
            (report,) = await reports(other)
            assert report["values"]["system_prompt"] == f"Be kind {number}."
            assert report["values"]["parameters"]["temperature"] == number / 10
        with pytest.raises(aio.AioRpcError) as refused:
            await second.config.SetConfig(config_pb2.SetConfigRequest(config=change, etag=etag))
        assert failure_of(refused.value).reason == "STALE_CONFIG"


async def test_health_and_metrics_tell_of_the_replicas(ray_address: str) -> None:
    llm = echo(application="watched", delete_on_stop=True)
    async with serving({"watched": llm}, monitoring="127.0.0.1:0", metrics={}) as server:
        await llm.load()

        async def is_serving() -> bool:
            answer = await server.health.Check(health_pb2.HealthCheckRequest(service="llm/watched"))
            return answer.status == health_pb2.HealthCheckResponse.SERVING

        await until_true(is_serving)
        (replica,) = llm.replicas
        assert server.server.metrics is not None
        text = (await asyncio.to_thread(server.server.metrics.render))[0].decode()
        assert (
            f'abstractllm_replica_ready{{abstractllm_llm="watched",abstractllm_replica="{replica.name}"}} 1.0' in text
        )
        assert f'abstractllm_replica="{replica.name}",abstractllm_state="running"' in text

        (report,) = await reports(llm)
        os.kill(report["pid"], signal.SIGKILL)
        # Ray Serve starts another one, and requests wait for it.
        assert (await server.generation.Generate(request("after"), timeout=LONGEST_WAIT)).text == "after"
        await until(lambda: [other.name for other in llm.replicas] not in ([], [replica.name]))
        await until_true(is_serving)


async def test_llms_that_are_deployed_at_once_do_not_disturb_one_another(
    ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import cloudpickle

    def pickle_slowly(*args: Any) -> bytes:
        time.sleep(0.1)
        return bytes(cloudpickle.dumps(*args))

    # A deployment's options pickle a class, for which Ray Serve changes what the whole process shares.
    monkeypatch.setattr("ray.serve.config.cloudpickle", SimpleNamespace(**vars(cloudpickle) | {"dumps": pickle_slowly}))
    llms = [echo(application=f"at-once-{number}", delete_on_stop=True) for number in range(2)]
    try:
        await asyncio.gather(*(llm.load() for llm in llms))
    finally:
        monkeypatch.undo()
        await asyncio.gather(*(llm.close_async() for llm in llms))


@pytest.mark.parametrize("busy", [[TimeoutError("busy")], TimeoutError("busy")], ids=["replicas", "ray"])
def test_replicas_that_are_too_busy_to_tell_of_themselves_are_not_replaced(
    busy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = echo()
    link, definition = llm._link, llm._link._define()
    report = {"replica": "r1", "version": [1, 0], "digest": definition.digest, "values": None}
    answers = iter([busy, busy, [{"result": encode(report)}]])

    def results(**_: object) -> Any:
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    handle = SimpleNamespace(broadcast=lambda *_: SimpleNamespace(results=results))
    monkeypatch.setattr("abstractllm.providers.ray.link.handle_of", lambda application: handle)
    assert link._fits(definition)
    assert not list(answers)
