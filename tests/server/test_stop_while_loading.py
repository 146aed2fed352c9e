"""SIGTERM while models load, wait for room, are unloaded and replaced: the process and all it started end in time."""

import asyncio
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from grpc import aio

from abstractllm_api.v1 import config_pb2, config_pb2_grpc, generation_pb2, generation_pb2_grpc, models_pb2_grpc
from abstractllm_api.v1 import models_pb2 as pb
from tests.server.test_process import MAIN
from tests.unit.tiny_models import build
from tests.waiting import until

HANG = 100.0
GRACE = 1.0
SLACK = 10.0
"""Seconds for a busy machine; far less than what the requests here would take."""
LLMS = """
listen: unix://{socket}
grace: {grace}
preload: []
max_loaded: 2
llms:
  a: {{provider: huggingface, model: {folder}/a, models: [{folder}/b], threads: 1}}
  c: {{provider: huggingface, model: {folder}/b, threads: 1}}
  d: {{provider: huggingface, model: {folder}/b, threads: 1}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("ab"):
        build(models / name, "llama", seed=seed, max_position_embeddings=100_000)
    return models


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.parametrize("stage", ["loading", "loaded"])
async def test_it_ends_within_the_grace_and_leaves_no_engine(folder: Path, tmp_path: Path, stage: str) -> None:
    socket, file = tmp_path / "s.sock", tmp_path / "llms.yaml"
    file.write_text(LLMS.format(socket=socket, grace=GRACE, folder=folder), "utf-8")
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", MAIN, file)
    try:
        await until(socket.is_socket)
        async with aio.insecure_channel(f"unix:{socket}") as channel:
            await asyncio.wait_for(channel.channel_ready(), HANG)  # a socket is there before it listens
            models = models_pb2_grpc.ModelServiceStub(channel)
            generation = generation_pb2_grpc.GenerationServiceStub(channel)
            config = config_pb2_grpc.ConfigServiceStub(channel)
            if stage == "loaded":
                async for _ in models.LoadModel(pb.LoadModelRequest(llm="a")):
                    pass
            endless = generation_pb2.GenerationParameters(logit_bias={1: -100.0, 3: -100.0})
            calls = [
                models.LoadModel(pb.LoadModelRequest(llm="a")),
                *(
                    generation.Generate(generation_pb2.GenerateRequest(llm=name, prompt="x", parameters=endless))
                    for name in "acd"
                ),
            ]
            await until(lambda: len(children(server.pid)) == 2)
            change = config_pb2.LlmConfig(model=f"{folder}/b")
            calls.append(config.SetConfig(config_pb2.SetConfigRequest(llm="a", config=change)))
            calls.append(models.UnloadModel(pb.UnloadModelRequest(llm="c", force=True)))
            await asyncio.sleep(0.5)
            engines = children(server.pid)
            assert 0 < len(engines) <= 2
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            await asyncio.wait_for(server.wait(), HANG)
            assert time.monotonic() - began < GRACE + 1 + SLACK
            _, left = psutil.wait_procs(engines, timeout=HANG)
            assert not left
            for call in calls:
                call.cancel()
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
