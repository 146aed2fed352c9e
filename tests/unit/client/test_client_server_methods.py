"""Methods that only a server has: its LLMs, their configuration, the models on its disk and in its memory."""

from __future__ import annotations

import copy
import dataclasses
import json
import operator
import pickle
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import abstractllm_client as client
from abstractllm_api.v1 import config_pb2, models_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_client import AsyncRemoteLLM, ConfigurationError, InvalidRequestError, RemoteLLM, Tool


async def test_counting_tokens_capabilities_and_llms(server: Any) -> None:
    async def count(request: Any, context: Any) -> pb.CountTokensResponse:
        return pb.CountTokensResponse(input_tokens=len(request.prompt))

    async def capabilities(request: Any, context: Any) -> models_pb2.GetCapabilitiesResponse:
        known = models_pb2.Capabilities(streaming=True, parameters=["seed"], context_window=512)
        return models_pb2.GetCapabilitiesResponse(capabilities=known)

    async def list_llms(request: Any, context: Any) -> models_pb2.ListLlmsResponse:
        ready, strange = models_pb2.LLM_STATE_READY, 50
        llms = [
            models_pb2.Llm(name="a", provider="p", model="m", is_default=True, state=ready, memory_bytes=0),
            models_pb2.Llm(name="b", state=strange),  # type: ignore[arg-type]
        ]
        return models_pb2.ListLlmsResponse(llms=llms)

    server.handlers |= {"CountTokens": count, "GetCapabilities": capabilities, "ListLlms": list_llms}
    with RemoteLLM(server.address, "local", tools=[Tool("f")]) as sync:
        async with AsyncRemoteLLM(server.address, "local", tools=[Tool("f")]) as llm:
            assert await llm.count_tokens("four") == sync.count_tokens("four") == await sync.count_tokens_async("four")
            assert {request.tools[0].name for request in server.requests} == {"f"}
            known = await llm.get_capabilities("m")
            assert known == sync.get_capabilities("m")
            assert server.requests[-1].model == "m"
            assert known["parameters"] == ("seed",)
            assert known["context_window"] == 512
            assert known["max_output_tokens"] is None
            assert (known.streaming, known.parameters, known.context_window) == (True, ("seed",), 512)
            llms = await llm.list_llms()
            assert llms == sync.list_llms()
            assert llms[0] == client.LlmInfo("a", "p", "m", True, client.LlmState.READY, memory_bytes=0)
            assert llms[1].state == 50


def test_capabilities_are_a_typed_value_and_the_dictionary_they_were() -> None:
    known = client.Capabilities(tools=True, parameters=("seed",), context_window=512)
    assert list(known) == list(client.ModelCapability)
    other_names = {"max_tokens", "supports_system_prompt"}
    assert {field.name for field in dataclasses.fields(known)} == set(known) - other_names
    assert (known.max_tokens, known.supports_system_prompt) == (known.max_output_tokens, known.system_prompt)
    assert isinstance(known, dict)
    assert all(getattr(known, name) == known[name] == known.get(name) for name in known)
    assert known[client.ModelCapability.TOOLS] is known.tools is True
    assert known == dict(known) == {**known} == dataclasses.replace(known)
    assert dict(known) == known != client.Capabilities()
    assert json.loads(json.dumps(known)) == dict(known) | {"parameters": ["seed"], "provider_options": []}
    assert repr(known).startswith("Capabilities(streaming=True, ")
    for copied in (pickle.loads(pickle.dumps(known)), copy.copy(known), copy.deepcopy(known)):
        assert type(copied) is client.Capabilities
        assert copied == known
    assert dataclasses.replace(known, tools=False) == known | {"tools": False}


def test_capabilities_refuse_changes() -> None:
    known = client.Capabilities()
    changes: list[Callable[[Any], object]] = [
        lambda known: operator.setitem(known, "tools", True),
        lambda known: operator.delitem(known, "tools"),
        lambda known: operator.ior(known, {"tools": True}),
        lambda known: known.update(tools=True),
        lambda known: known.setdefault("new", 1),
        lambda known: known.pop("tools"),
        lambda known: known.popitem(),
        lambda known: known.clear(),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="cannot be changed"):
            change(known)
    with pytest.raises(dataclasses.FrozenInstanceError):
        known.tools = True  # type: ignore[misc]
    assert known == client.Capabilities()
    assert type(known.copy()) is type(known | {}) is dict


def test_the_configuration_goes_both_ways(server: Any) -> None:
    config = config_pb2.LlmConfig(model="m", system_prompt="", quantization=config_pb2.QUANTIZATION_INT8)
    config.parameters.temperature = 0
    config.parameters.stop.append(".")
    config.timeout.FromMilliseconds(1500)
    config.provider_options.update({"n": 3, "deep": [1.5, 2]})

    async def get_config(request: Any, context: Any) -> config_pb2.GetConfigResponse:
        return config_pb2.GetConfigResponse(config=config, etag="e1")

    async def set_config(request: Any, context: Any) -> config_pb2.SetConfigResponse:
        return config_pb2.SetConfigResponse(config=request.config, etag="e2")

    server.handlers |= {"GetConfig": get_config, "SetConfig": set_config}
    with RemoteLLM(server.address, "local") as llm:
        values, etag = llm.get_config_and_etag()
        assert etag == "e1"
        assert type(values) is dict
        assert (
            values
            == llm.get_config()
            == {
                "model": "m",
                "system_prompt": "",
                "quantization": "int8",
                "temperature": 0.0,
                "stop": ["."],
                "timeout": 1.5,
                "provider_options": {"n": 3, "deep": [1.5, 2]},
            }
        )
        assert llm.set_config(values, etag=etag) == values
        assert server.requests[-1].config == config
        assert server.requests[-1].etag == "e1"
        mask = {"model", "system_prompt", "quantization", "timeout", "provider_options"}
        assert set(server.requests[-1].update_mask.paths) == mask | {"parameters.temperature", "parameters.stop"}
        assert llm.set_config({"timeout": None, "parameters": {"seed": 5}}, keep_alive="10m", top_k=None) == {
            "seed": 5,
            "keep_alive": 600.0,
        }
        assert set(server.requests[-1].update_mask.paths) == {
            "timeout",
            "keep_alive",
            "parameters.seed",
            "parameters.top_k",
        }
        assert not server.requests[-1].config.HasField("timeout")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"api_key": "secret-key"}, "api_key"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"temperature": "hot"}, "parameters.temperature"),
        ({"quantization": "int3"}, "quantization"),
        ({"provider_options": []}, "provider_options"),
        ({"parameters": 5}, "parameters"),
        ({"parameters": {"modell": "x"}}, "parameters.modell"),
    ],
)
def test_a_key_that_cannot_be_configured_is_refused_by_name(server: Any, changes: dict[str, Any], field: str) -> None:
    with RemoteLLM(server.address) as llm, pytest.raises(ConfigurationError) as caught:
        llm.set_config(changes)
    assert caught.value.field == field
    assert "secret-key" not in str(caught.value)
    assert server.requests == []


async def test_cached_models_are_listed_over_all_pages_and_cleared(server: Any) -> None:
    first = models_pb2.CachedModel(name="a", revisions=["r1"], size_bytes=5, used_by=["local"])
    first.last_used_time.FromMilliseconds(1500)

    async def list_cached(request: Any, context: Any) -> models_pb2.ListCachedModelsResponse:
        if not request.page_token:
            return models_pb2.ListCachedModelsResponse(models=[first], next_page_token="next")
        return models_pb2.ListCachedModelsResponse(models=[models_pb2.CachedModel(name="b", partial=True)])

    async def clear(request: Any, context: Any) -> models_pb2.ClearCacheResponse:
        return models_pb2.ClearCacheResponse(removed=[request.model or "all"], freed_bytes=5)

    server.handlers |= {"ListCachedModels": list_cached, "ClearCache": clear}
    with RemoteLLM(server.address) as llm:
        models = llm.list_cached_models()
        assert models == await llm.list_cached_models_async()
        assert models == [
            client.CachedModel("a", ("r1",), 5, last_used_time=1.5, used_by=("local",)),
            client.CachedModel("b", (), 0, partial=True),
        ]
        assert llm.clear_model_cache("a", dry_run=True) == client.ClearedModels(("a",), 5)
        assert server.requests[-1].dry_run
        assert (await llm.clear_model_cache_async(all_models=True)).removed == ("all",)
        assert server.requests[-1].WhichOneof("target") == "all"
        before = len(server.requests)
        for arguments in ({}, {"model_name": "a", "all_models": True}):
            with pytest.raises(InvalidRequestError) as caught:
                llm.clear_model_cache(**arguments)
            assert caught.value.field == "target"
        assert len(server.requests) == before


async def test_progress_streams_are_decoded(server: Any) -> None:
    async def pull(request: Any, context: Any) -> AsyncIterator[models_pb2.PullModelResponse]:
        yield models_pb2.PullModelResponse(file="w", file_bytes_done=1, bytes_done=1, bytes_total=2)
        yield models_pb2.PullModelResponse(bytes_done=2, bytes_total=2, done=True)

    async def load(request: Any, context: Any) -> AsyncIterator[models_pb2.LoadModelResponse]:
        yield models_pb2.LoadModelResponse(state=models_pb2.LLM_STATE_LOADING, phase="weights", fraction=0.5)

    async def unload(request: Any, context: Any) -> AsyncIterator[models_pb2.UnloadModelResponse]:
        yield models_pb2.UnloadModelResponse(state=models_pb2.LLM_STATE_UNLOADED, running=int(request.force))

    server.handlers |= {"PullModel": pull, "LoadModel": load, "UnloadModel": unload}
    with RemoteLLM(server.address) as llm:
        pulled = list(llm.pull_model("m"))
        assert pulled == [report async for report in llm.pull_model_async("m")]
        assert pulled == [
            client.PullProgress("w", 1, None, 1, 2, False),
            client.PullProgress("", 0, None, 2, 2, True),
        ]
        loaded = list(llm.load_model())
        assert loaded == [report async for report in llm.load_model_async()]
        assert loaded == [client.LoadProgress(client.LlmState.LOADING, "weights", 0.5)]
        unloaded = list(llm.unload_model(force=True))
        assert unloaded == [report async for report in llm.unload_model_async(force=True)]
        assert unloaded == [client.UnloadProgress(client.LlmState.UNLOADED, 1)]
