"""The contract only grows: what would break it is caught, and clients and servers of other versions work together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from grpc import aio

from abstractllm import create_llm
from abstractllm.testing import ScriptedProvider
from abstractllm_client import AsyncRemoteLLM, Started, TextDelta
from tests.clients.contracts import Contract, Sources, released
from tests.fake_hub import FakeHub
from tests.server.support import HANG, failure, serving

BREAKING = {
    "a removed field": ("generation", "  // Why it ended.\n  FinishReason finish_reason = 1;\n", ""),
    "a renamed field": ("generation", "Role role = 1;", "Role speaker = 1;"),
    "a renumbered field": ("generation", "optional double min_p = 5;", "optional double min_p = 16;"),
    "a retyped field": ("generation", "optional int32 top_k = 4;", "optional int64 top_k = 4;"),
    "another message's field": ("generation", "repeated Tool tools = 7;", "repeated Part tools = 7;"),
    "a field made optional": ("config", "string etag = 4;", "optional string etag = 4;"),
    "a field made repeated": ("models", "  string state_reason = 6;", "  repeated string state_reason = 6;"),
    "a field moved into a oneof": ("models", "  bool dry_run = 4;", "  oneof how {\n    bool dry_run = 4;\n  }"),
    "a field moved out of a oneof": (
        "models",
        "    // Every model of the cache.\n    AllModels all = 3;\n  }",
        "  }\n  // Every model of the cache.\n  AllModels all = 3;",
    ),
    "a removed enum value": ("models", "  // It can answer.\n  LLM_STATE_READY = 3;\n", ""),
    "a renamed enum value": ("generation", "ROLE_TOOL = 4;", "ROLE_FUNCTION = 4;"),
    "a renumbered enum value": ("config", "QUANTIZATION_INT4 = 3;", "QUANTIZATION_INT4 = 4;"),
    "a removed RPC": ("generation", "  rpc CountTokens(CountTokensRequest) returns (CountTokensResponse);\n", ""),
    "a renamed RPC": ("generation", "rpc CountTokens(", "rpc Count("),
    "another request": ("config", "rpc GetConfig(GetConfigRequest)", "rpc GetConfig(SetConfigRequest)"),
    "another answer": ("config", "returns (SetConfigResponse)", "returns (GetConfigResponse)"),
    "a stream for one answer": ("models", "returns (ListLlmsResponse)", "returns (stream ListLlmsResponse)"),
    "one answer for a stream": ("models", "returns (stream LoadModelResponse)", "returns (LoadModelResponse)"),
    "a renamed service": ("config", "service ConfigService {", "service SettingsService {"),
    "a renamed message": ("generation", "message ReasoningDelta {", "message Thought {"),
    "another Go package": ("errors", "abstractllmv1;abstractllmv1", "abstractllmv1;api"),
}

# What a later version might add. Every kind of growth, each with a comment, as `buf lint` wants.
GROWTH = {
    "a field of a request": (
        "generation",
        "  ParametersPolicy parameters_policy = 12;\n",
        "  // For whom the answer is.\n  string audience = 13;\n",
    ),
    "a kind of input": (
        "generation",
        "  // A conversation; its last message is the one to be answered.\n    Chat chat = 3;\n",
        "    // A question that was kept.\n    string kept = 14;\n",
    ),
    "a parameter": (
        "generation",
        "  optional ReasoningEffort reasoning_effort = 14;\n",
        "  // How warm the words are.\n  optional double warmth = 15;\n",
    ),
    "a kind of part": (
        "generation",
        "    Reasoning reasoning = 5;\n",
        "    // Something to hear.\n    bytes sound = 6;\n",
    ),
    "a kind of event": (
        "generation",
        "    Finished finished = 5;\n",
        "    // More to hear.\n    bytes sound_delta = 6;\n",
    ),
    "a field of an answer": (
        "generation",
        "  repeated string dropped_parameters = 13;\n",
        "  // For whom it is.\n  string audience = 14;\n",
    ),
    "a finish reason": (
        "generation",
        "  FINISH_REASON_REFUSAL = 6;\n",
        "  // The model waits for something to hear.\n  FINISH_REASON_SILENCE = 7;\n",
    ),
    "a word of a parameter": (
        "generation",
        "  REASONING_EFFORT_XHIGH = 6;\n",
        "  // Without end.\n  REASONING_EFFORT_ENDLESS = 7;\n",
    ),
    "an error reason": (
        "errors",
        "  ERROR_REASON_INTERNAL = 26;\n",
        "  // FAILED_PRECONDITION. Nobody listens.\n  ERROR_REASON_NO_AUDIENCE = 27;\n",
    ),
    "a capability": (
        "models",
        "  optional int32 max_concurrent_requests = 19;\n",
        "  // `audience` is understood.\n  bool audience = 20;\n",
    ),
    "a message": (
        "config",
        'option java_package = "io.abstractllm.v1";\n',
        "\n// Asks for a configuration as it is in the file.\nmessage ResetConfigRequest {}\n",
    ),
    "an RPC": (
        "config",
        "  rpc SetConfig(SetConfigRequest) returns (SetConfigResponse);\n",
        "  // Reads a configuration once more.\n  rpc ReadConfig(GetConfigRequest) returns (GetConfigResponse);\n",
    ),
}


def grow(sources: Sources, kind: str) -> None:
    file, last, added = GROWTH[kind]
    sources.edit(file, last, last + added)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path / "sources")


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    """Today's contract, grown by everything above."""
    sources = Sources(tmp_path_factory.mktemp("newer") / "sources")
    for kind in GROWTH:
        grow(sources, kind)
    return sources.build()


@pytest.mark.parametrize("kind", BREAKING)
def test_a_change_that_would_break_callers_is_caught(sources: Sources, kind: str) -> None:
    sources.edit(*BREAKING[kind])
    assert sources.compatible() != ""


@pytest.mark.parametrize("kind", GROWTH)
def test_growth_is_accepted(sources: Sources, kind: str) -> None:
    grow(sources, kind)
    assert sources.compatible() == ""


def test_the_last_release_is_the_one_that_changes_are_held_against(repository: Path) -> None:
    wanted = f"buf breaking --against proto/released/{released()[-1].name}"
    assert wanted in (repository / "Makefile").read_text("utf-8").replace("$(BIN)/", "")
    assert wanted in (repository / "buf.yaml").read_text("utf-8")


# One call of every RPC, in an order in which each can succeed, and what its last answer holds.
CALLS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    (
        "GenerationService.Generate",
        {"prompt": "hello there", "parameters": {"temperature": 0.5}, "labels": {"team": "blue"}},
        {"text": "hello there", "finish_reason": "FINISH_REASON_STOP", "llm": "echo"},
    ),
    (
        "GenerationService.StreamGenerate",
        {"chat": {"messages": [{"role": "ROLE_USER", "parts": [{"text": "hi"}]}]}},
        {"finished": {"finish_reason": "FINISH_REASON_STOP"}},
    ),
    ("GenerationService.CountTokens", {"prompt": "one two three"}, {"input_tokens": "3"}),
    ("ModelService.ListLlms", {}, {"llms": [{"name": "echo", "is_default": True}, {"name": "hub"}]}),
    ("ModelService.GetCapabilities", {}, {"capabilities": {"streaming": True, "chat": True}}),
    ("ModelService.LoadModel", {}, {"state": "LLM_STATE_READY"}),
    ("ModelService.UnloadModel", {"llm": "hub"}, {"state": "LLM_STATE_UNLOADED"}),
    ("ModelService.PullModel", {"llm": "hub"}, {"done": True}),
    ("ModelService.ListCachedModels", {"llm": "hub"}, {"models": [{"name": "org/model"}]}),
    ("ModelService.ClearCache", {"llm": "hub", "all": {}}, {"removed": ["org/model"]}),
    (
        "ConfigService.SetConfig",
        {"config": {"system_prompt": "Be brief."}, "update_mask": "systemPrompt"},
        {"config": {"system_prompt": "Be brief."}},
    ),
    ("ConfigService.GetConfig", {}, {"config": {"system_prompt": "Be brief."}}),
)


def holds(answer: Any, wanted: Any) -> bool:
    """Returns True if an answer holds at least what is wanted."""
    if isinstance(wanted, dict):
        return isinstance(answer, dict) and all(key in answer and holds(answer[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(answer) == len(wanted) and all(map(holds, answer, wanted))
    return bool(answer == wanted)


@pytest.mark.parametrize("release", released(), ids=lambda path: path.stem)
async def test_every_rpc_of_todays_server_answers_a_client_of_a_release(
    release: Path, hub: FakeHub, tmp_path: Path
) -> None:
    old = Contract(release)
    assert old.methods.keys() <= {name for name, _, _ in CALLS}
    hub.add("org/model")
    local = create_llm("huggingface", model="org/model", cache_dir=str(tmp_path / "cache"))
    async with serving({"echo": ScriptedProvider(), "hub": local}, preload=()) as today:
        for name, request, wanted in CALLS:
            if name in old.methods:
                answers = await asyncio.wait_for(old.ask(today.channel, name, request), 3 * HANG)
                assert holds(answers[-1], wanted), (name, answers)
        events = await old.ask(today.channel, "GenerationService.StreamGenerate", {"prompt": "hello there"})
        assert "".join(event.get("text_delta", {}).get("text", "") for event in events) == "hello there"


async def test_todays_server_answers_a_newer_client_and_refuses_what_it_can_see(newer: Contract) -> None:
    """The server is the old one here: it knows nothing of what the contract was grown by."""
    async with serving() as today:
        request = {"prompt": "hello", "audience": "children", "parameters": {"warmth": 0.5}}
        (answer,) = await newer.ask(today.channel, "GenerationService.Generate", request)
        assert (answer["text"], "audience" in answer) == ("hello", False)
        (response,) = await newer.ask(today.channel, "ModelService.GetCapabilities", {})
        # What a client goes by that depends on a field which an old server does not see.
        assert not response["capabilities"].get("audience")
        assert "warmth" not in response["capabilities"]["parameters"]
        assert "temperature" in response["capabilities"]["parameters"]

        for refused, field in (
            ({"kept": "yesterday's"}, "prompt"),  # to this server nothing is asked at all
            (
                {"chat": {"messages": [{"role": "ROLE_USER", "parts": [{"sound": "aGk="}]}]}},
                "chat.messages[0].parts[0]",
            ),
            ({"prompt": "hi", "parameters": {"reasoning_effort": 7}}, "parameters.reasoning_effort"),
        ):
            failed = await failure(newer.call(today.channel, "GenerationService.Generate", refused))
            assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
            assert failed.fields[0].startswith(field)
        unknown = await failure(newer.call(today.channel, "ConfigService.ReadConfig", {}))
        assert unknown.code is grpc.StatusCode.UNIMPLEMENTED
        await today.works()


@pytest.mark.parametrize("release", released(), ids=lambda path: path.stem)
async def test_what_a_release_does_not_know_of_a_request_does_it_no_harm(release: Path, newer: Contract) -> None:
    """A server made of nothing but the release's descriptors."""
    old, arrived = Contract(release), []

    def answer(request: Any) -> list[dict[str, Any]]:
        arrived.append(request)
        return [{"text": request.prompt, "finish_reason": "FINISH_REASON_STOP"}]

    def stream(request: Any) -> list[dict[str, Any]]:
        return [{"started": {"llm": "old"}}, {"text_delta": {"text": request.prompt}}, {"finished": {}}]

    answers = {"GenerationService.Generate": answer, "GenerationService.StreamGenerate": stream}
    async with old.serving(answers) as address, aio.insecure_channel(address) as channel:
        grown_request = {"prompt": "hello", "audience": "children", "parameters": {"warmth": 0.5, "top_k": 3}}
        assert await newer.ask(channel, "GenerationService.Generate", grown_request) == [
            {"text": "hello", "finish_reason": "FINISH_REASON_STOP"}
        ]
        events = await newer.ask(channel, "GenerationService.StreamGenerate", grown_request)
        assert [next(iter(event)) for event in events] == ["started", "text_delta", "finished"]
    (request,) = arrived
    assert (request.prompt, request.parameters.top_k) == ("hello", 3)
    assert [field.field_number for field in UnknownFieldSet(request)] == [13]
    assert [field.field_number for field in UnknownFieldSet(request.parameters)] == [15]


async def test_todays_client_works_with_a_newer_server(newer: Contract) -> None:
    parts = [{"sound": "aGk="}, {"text": "hello"}]
    message = {"role": "ROLE_ASSISTANT", "parts": parts}
    answers = {
        "GenerationService.Generate": lambda request: [
            {"text": "hello", "message": message, "finish_reason": "FINISH_REASON_SILENCE", "audience": "all"}
        ],
        "GenerationService.StreamGenerate": lambda request: [
            {"started": {"llm": "newer"}},
            {"sound_delta": "aGk="},
            {"text_delta": {"text": "hel"}},
            {"sound_delta": "aGk="},
            {"text_delta": {"text": "lo"}},
            {"finished": {"finish_reason": "FINISH_REASON_SILENCE", "message": message}},
        ],
        "ModelService.GetCapabilities": lambda request: [
            {"capabilities": {"audience": True, "chat": True, "parameters": ["temperature", "warmth"]}}
        ],
    }
    async with newer.serving(answers) as address, AsyncRemoteLLM(address, timeout=HANG) as llm:
        completion = await llm.complete("hi")
        assert (completion.text, completion.finish_reason) == ("hello", 7)
        assert [type(part).__name__ for part in completion.message.parts] == ["Text"]
        events = [event async for event in llm.stream("hi")]
        assert [type(event).__name__ for event in events] == ["Started", "TextDelta", "TextDelta", "Finished"]
        assert isinstance(events[0], Started) and events[0].llm == "newer"
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "hello"
        assert events[-1].finish_reason == 7  # type: ignore[union-attr]
        capabilities = await llm.get_capabilities()
        assert capabilities["chat"] and "warmth" in capabilities["parameters"]
