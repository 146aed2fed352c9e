"""A replica that dies takes its own streams along, and nothing else; what takes its place is as it was."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

import grpc
import pytest
from grpc import aio

from abstractllm_api.v1 import config_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_client import AsyncRemoteLLM
from tests.ray.replicas import ENDLESS, demo, reports, running, until_reports
from tests.server.support import Serving, failure_of, serving
from tests.waiting import until

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("ray_address")]
STREAMS, WHOLE = 64, 16


async def test_a_replica_that_is_killed_under_64_streams(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "abstractllm.call")
    llm = demo()
    async with serving({"local": llm}) as server:
        await llm.load()
        told = await until_reports(llm, lambda told: len(told) == 2 and running(told) == 0)
        change = config_pb2.LlmConfig(system_prompt="Be brief.")
        await server.config.SetConfig(config_pb2.SetConfigRequest(config=change))
        started = [asyncio.Event() for _ in range(STREAMS)]
        streams = [asyncio.create_task(_stream(server, event)) for event in started]
        await asyncio.gather(*(event.wait() for event in started))
        async with AsyncRemoteLLM(server.server.address, timeout=300) as client:
            answers = [
                asyncio.create_task(client.complete("What is 7 + 5?", logit_bias=ENDLESS, max_tokens=60))
                for _ in range(WHOLE)
            ]
            told = await reports(llm)
            victim = max(told, key=lambda report: report["running"])
            os.kill(victim["pid"], signal.SIGKILL)
            ends = await asyncio.gather(*streams)
            completions = await asyncio.gather(*answers)
        lost = [end for end in ends if isinstance(end, aio.AioRpcError)]
        assert 0 < len(lost) <= victim["running"] + victim["queued"]
        # The log tells which replica each was answered by; of the others no stream is lost.
        lines: list[str] = []

        def all_are_logged() -> bool:
            lines[:] = [line for line in caplog.messages if "/StreamGenerate" in line and "replica=" in line]
            return len(lines) >= STREAMS

        await until(all_are_logged)  # a call's line comes when its caller has its answer
        assert len(lines) == STREAMS
        assert sum(f"replica={victim['replica']} error=ENGINE_CRASHED" in line for line in lines) == len(lost)
        assert [end for end in ends if end not in lost] == ["max_tokens"] * (STREAMS - len(lost))
        for error in lost:
            failure = failure_of(error)
            assert failure.code is grpc.StatusCode.UNAVAILABLE
            assert failure.reason == "ENGINE_CRASHED"
            assert failure.retry_delays
            assert failure.metadata["llm"] == "local"
        assert {completion.usage.output_tokens for completion in completions} == {60}

        # Another takes its place, with what was changed before it was there.
        told = await until_reports(
            llm, lambda told: len(told) == 2 and victim["replica"] not in [report["replica"] for report in told]
        )
        told = await until_reports(llm, lambda told: len({tuple(report["version"]) for report in told}) == 1)
        assert [report["values"]["system_prompt"] for report in told] == ["Be brief."] * 2
        await server.config.SetConfig(
            config_pb2.SetConfigRequest(config=config_pb2.LlmConfig(), update_mask={"paths": ["system_prompt"]})
        )


async def _stream(server: Serving, started: asyncio.Event) -> Any:
    """Reads a stream to its end; returns its finish reason, or the error."""
    parameters = pb.GenerationParameters(temperature=0, max_tokens=150, logit_bias=ENDLESS)
    try:
        async for response in server.generation.StreamGenerate(pb.GenerateRequest(prompt="Hi", parameters=parameters)):
            started.set()
            if response.WhichOneof("event") == "finished":
                return pb.FinishReason.Name(response.finished.finish_reason).removeprefix("FINISH_REASON_").lower()
    except aio.AioRpcError as error:
        return error
    finally:
        started.set()
    return "broken off"
