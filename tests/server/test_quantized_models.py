"""Quantized local models through gRPC."""

from pathlib import Path

import pytest

from abstractllm import create_llm
from abstractllm_api.v1 import models_pb2 as pb
from tests.server.support import request, serving
from tests.unit.tiny_models import build


@pytest.mark.timeout(300)  # two engine processes that import bitsandbytes
async def test_quantized_models_answer_and_say_what_they_are(tmp_path: Path) -> None:
    model = str(build(tmp_path / "llama", "llama", hidden_size=128, intermediate_size=256, head_dim=64))
    llms = {
        "eight": create_llm("huggingface", model=model, load_in_8bit=True),
        "four": create_llm("huggingface", model=model, load_in_4bit=True),
    }
    async with serving(llms, preload=()) as served:
        for name in llms:
            answer = await served.generation.Generate(request(llm=name, parameters={"max_tokens": 4}))
            assert answer.usage.output_tokens >= 1
        described = {name: (await served.models.GetCapabilities(pb.GetCapabilitiesRequest(llm=name))) for name in llms}
        listed = {llm.name: llm.memory_bytes for llm in (await served.models.ListLlms(pb.ListLlmsRequest())).llms}
    assert [described[name].capabilities.quantization for name in llms] == ["int8", "int4"]
    assert listed["eight"] > listed["four"] > 0
