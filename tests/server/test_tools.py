"""Tools and reasoning of a local model over gRPC: a forced call, its result sent back, reasoning split off."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import pytest_asyncio

from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import models_pb2
from tests.server.support import Serving, failure, request, serving
from tests.unit import chat_templates
from tests.unit.taught_models import Lesson, teach

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOADING = 120.0
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "days": {"type": "integer", "maximum": 99}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = pb.Tool(name="weather", description="Tells the weather.", parameters_json_schema=json.dumps(SCHEMA))
DEFINITION = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    directory = taught(tmp_path_factory.mktemp("taught"))
    llm = HuggingFaceProvider({"model": str(directory), "threads": 2, "max_tokens": 200})
    async with serving({"local": llm}) as running:
        await llm.load()
        yield running


def taught(directory: Path) -> Path:
    question = {"role": "user", "content": "Weather?"}
    called: Any = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather"}}]}
    called["tool_calls"][0]["function"]["arguments"] = {"city": "Rome", "days": 1}
    result = {"role": "tool", "content": "sunny"}
    lessons = [
        Lesson([question], "I would rather not.\n</think>\n\nNo.", [DEFINITION]),
        Lesson([question, called, result], "So it is sunny.\n</think>\n\nSunny!", [DEFINITION]),
    ]
    return teach(directory, chat_templates.OPENED, lessons)


async def test_a_forced_call_streams_valid_arguments_and_its_result_goes_back(served: Serving) -> None:
    message = request(
        "Weather?",
        tools=[WEATHER],
        tool_choice=pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED),
    )
    events = [event async for event in served.generation.StreamGenerate(message, timeout=LOADING)]
    kinds = [event.WhichOneof("event") for event in events]
    assert list(dict.fromkeys(kinds)) == ["started", "reasoning_delta", "tool_call_delta", "finished"]
    reasoning = "".join(event.reasoning_delta.text for event in events)
    assert reasoning == "I would rather not."
    first, *rest = [event.tool_call_delta for event in events if event.WhichOneof("event") == "tool_call_delta"]
    assert (first.index, first.name, len(first.id)) == (0, "weather", 9)
    assert not any(delta.id or delta.name or delta.index for delta in rest)
    arguments = first.arguments_fragment + "".join(delta.arguments_fragment for delta in rest)
    jsonschema.validate(json.loads(arguments), SCHEMA)
    finished = events[-1].finished
    assert finished.finish_reason == pb.FINISH_REASON_TOOL_CALLS
    assert [part.WhichOneof("part") for part in finished.message.parts] == ["reasoning", "tool_call"]
    assert finished.message.parts[1].tool_call == pb.ToolCall(id=first.id, name="weather", arguments_json=arguments)
    assert 0 < finished.usage.reasoning_tokens < finished.usage.output_tokens

    # The model has learned what follows one call in particular.
    call = pb.ToolCall(id=first.id, name="weather", arguments_json='{"city": "Rome", "days": 1}')
    turns = [
        pb.ChatMessage(role=pb.ROLE_USER, parts=[pb.Part(text="Weather?")]),
        pb.ChatMessage(role=pb.ROLE_ASSISTANT, parts=[pb.Part(tool_call=call)]),
        pb.ChatMessage(
            role=pb.ROLE_TOOL, parts=[pb.Part(tool_result=pb.ToolResult(tool_call_id=first.id, content="sunny"))]
        ),
    ]
    answered = pb.GenerateRequest(chat=pb.Chat(messages=turns), tools=[WEATHER])
    answer = await served.generation.Generate(answered, timeout=LOADING)
    assert (answer.text, answer.finish_reason) == ("Sunny!", pb.FINISH_REASON_STOP)
    assert [part.reasoning.text for part in answer.message.parts] == ["So it is sunny.", ""]


async def test_tools_are_counted_and_told_among_the_capabilities(served: Serving) -> None:
    bare = await served.generation.CountTokens(pb.CountTokensRequest(prompt="Weather?"), timeout=LOADING)
    message = pb.CountTokensRequest(prompt="Weather?", tools=[WEATHER])
    offered = await served.generation.CountTokens(message, timeout=LOADING)
    assert offered.input_tokens > bare.input_tokens + 50
    answer = await served.models.GetCapabilities(models_pb2.GetCapabilitiesRequest(llm="local"))
    assert answer.capabilities.tools
    assert "reasoning_effort" not in answer.capabilities.parameters


async def test_an_effort_that_the_template_has_no_switch_for_is_refused_by_name(served: Serving) -> None:
    parameters = pb.GenerationParameters(reasoning_effort=pb.REASONING_EFFORT_NONE)
    refused = await failure(served.generation.Generate(request("Weather?", parameters=parameters), timeout=LOADING))
    assert (refused.reason, refused.metadata["field"]) == ("UNSUPPORTED_PARAMETER", "parameters.reasoning_effort")
