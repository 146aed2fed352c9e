"""ConfigService: read, change, refuse; running requests keep what they began with."""

import asyncio
from typing import Any

import pytest

from abstractllm import Capabilities
from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import config_pb2 as pb
from abstractllm_api.v1 import generation_pb2 as gen
from tests.server.support import Serving, collect, failure, request, serving

P = gen.GenerationParameters
CONFIG: dict[str, Any] = {
    "model": "a",
    "models": ["b", "c"],
    "system_prompt": "be kind",
    "temperature": 0.5,
    "stop": ["END"],
    "logit_bias": {7: 1.5},
    "timeout": 2.5,
    "max_retries": 1,
    "provider_options": {"reply": "configured", "delay": 0},
}


def configured(**more: Any) -> ScriptedProvider:
    return ScriptedProvider(CONFIG | more)


async def get(served: Serving) -> pb.GetConfigResponse:
    return await served.config.GetConfig(pb.GetConfigRequest())


async def change(served: Serving, *paths: str, etag: str = "", validate_only: bool = False, **fields: Any) -> Any:
    message = pb.SetConfigRequest(config=pb.LlmConfig(**fields), etag=etag, validate_only=validate_only)
    message.update_mask.paths.extend(paths)
    if not paths:
        message.ClearField("update_mask")
    return await served.config.SetConfig(message)


async def test_configuration_is_read_whole() -> None:
    async with serving({"set": configured()}) as served:
        answer = await get(served)
    config = answer.config
    assert (config.model, config.system_prompt, config.max_retries) == ("a", "be kind", 1)
    assert config.timeout.ToMilliseconds() == 2500
    assert config.parameters == P(temperature=0.5, stop=["END"], logit_bias={7: 1.5})
    assert dict(config.provider_options) == {"reply": "configured", "delay": 0}
    assert not config.HasField("keep_alive")
    assert answer.etag


async def test_without_a_mask_the_set_fields_change_and_the_rest_stays() -> None:
    async with serving({"set": configured()}) as served:
        before = await get(served)
        answer = await change(served, model="b", parameters=P(temperature=0, seed=3, stop=["X", "Y"]), max_retries=0)
        after = await get(served)
        assert answer.config == after.config
        assert answer.etag == after.etag != before.etag
        expected = pb.LlmConfig()
        expected.CopyFrom(before.config)
        expected.model, expected.max_retries = "b", 0
        expected.parameters.CopyFrom(P(temperature=0, seed=3, stop=["X", "Y"], logit_bias={7: 1.5}))
        assert after.config == expected

        await served.generation.Generate(request())
        received = served.scripted().requests[0]
        assert received.parameters.set_fields() == {
            "model": "b",
            "temperature": 0.0,
            "seed": 3,
            "stop": ("X", "Y"),
            "logit_bias": {7: 1.5},
        }


async def test_masked_fields_change_or_are_cleared_and_no_others() -> None:
    async with serving({"set": configured()}) as served:
        await change(served, "timeout", "parameters.stop", "parameters.top_k", model="b", parameters=P(top_k=5, seed=9))
        config = (await get(served)).config
        assert not config.HasField("timeout")
        assert config.model == "a"
        assert config.parameters == P(temperature=0.5, logit_bias={7: 1.5}, top_k=5)

        await change(served, "parameters", parameters=P(min_p=0.5))
        assert (await get(served)).config.parameters == P(min_p=0.5)

        await change(served, "parameters", "provider_options", "system_prompt", "max_retries")
        config = (await get(served)).config
        assert (config.parameters, len(config.provider_options)) == (P(), 0)
        assert (config.HasField("system_prompt"), config.max_retries) == (False, 0)
        await served.works()


async def test_provider_options_are_replaced_whole() -> None:
    async with serving({"set": configured()}) as served:
        for paths in ((), ("provider_options",)):
            await change(served, *paths, provider_options={"reply": "new"})
            assert dict((await get(served)).config.provider_options) == {"reply": "new"}


async def test_cleared_model_is_the_files_again() -> None:
    async with serving({"set": configured()}) as served:
        await change(served, model="c")
        await change(served, "model")
        assert (await get(served)).config.model == "a"


async def test_empty_mask_means_the_set_fields() -> None:
    async with serving({"set": configured()}) as served:
        message = pb.SetConfigRequest(config=pb.LlmConfig(model="b"))
        message.update_mask.SetInParent()
        await served.config.SetConfig(message)
        assert (await get(served)).config.model == "b"


@pytest.mark.parametrize(
    "path",
    ["", "*", "name", "config.model", "parameters.", "parameters.stop.x", "parameters.model", "Model", "model.x", "."],
)
async def test_path_that_is_no_field_is_refused(path: str) -> None:
    async with serving({"set": configured()}) as served:
        before = await get(served)
        error = await failure(change(served, "timeout", path, model="b"))
        assert (error.code.name, error.reason, error.fields) == ("INVALID_ARGUMENT", "INVALID_REQUEST", ["update_mask"])
        assert await get(served) == before


async def test_model_may_only_be_one_of_the_files() -> None:
    async with serving({"set": configured()}) as served:
        for model in ("c", "b", "a"):
            await change(served, model=model)
        error = await failure(change(served, model="d"))
        assert (error.code.name, error.reason, error.fields) == ("NOT_FOUND", "MODEL_NOT_FOUND", ["config.model"])
        assert error.metadata["limit"] == "a, b, c"
        assert (await get(served)).config.model == "a"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"parameters": P(temperature=7)}, "config.parameters.temperature"),
        ({"parameters": P(stop=[""])}, "config.parameters.stop[0]"),
        ({"parameters": P(stop=[str(n) for n in range(17)])}, "config.parameters.stop"),
        ({"parameters": P(model="b")}, "config.parameters.model"),
        ({"parameters": P(reasoning_effort=99)}, "config.parameters.reasoning_effort"),  # type: ignore[arg-type]
        ({"quantization": 99}, "config.quantization"),
        ({"quantization": pb.QUANTIZATION_INT8}, "config.quantization"),
        ({"max_retries": 11}, "config.max_retries"),
        ({"provider_options": {"x": float("inf")}}, "config.provider_options.x"),
        ({"provider_options": {"x": [1, {"y": float("nan")}]}}, "config.provider_options.x[1].y"),
    ],
)
async def test_bad_value_is_refused_by_path_and_changes_nothing(fields: dict[str, Any], field: str) -> None:
    async with serving({"set": configured()}) as served:
        before = await get(served)
        error = await failure(change(served, **fields))
        assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        assert error.fields == [error.metadata["field"]] == [field]
        assert field in error.message
        assert await get(served) == before


async def test_stale_etag_is_aborted_and_a_fresh_one_is_taken() -> None:
    async with serving({"set": configured()}) as served:
        etag = (await get(served)).etag
        fresh = (await change(served, model="b", etag=etag)).etag
        error = await failure(change(served, model="c", etag=etag))
        assert (error.code.name, error.reason, error.retry_delays) == ("ABORTED", "STALE_CONFIG", [])
        assert (await get(served)).config.model == "b"
        await change(served, model="c", etag=fresh)
        assert (await get(served)).config.model == "c"


async def test_of_many_setters_with_one_etag_one_wins() -> None:
    async with serving({"set": configured()}) as served:
        etag = (await get(served)).etag
        calls = [change(served, max_retries=2 + index, etag=etag) for index in range(8)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        won = [index for index, result in enumerate(results) if isinstance(result, pb.SetConfigResponse)]
        assert len(won) == 1
        assert (await get(served)).config.max_retries == 2 + won[0]


async def test_setters_of_different_fields_lose_nothing() -> None:
    async with serving({"set": configured()}) as served:
        names = ("top_k", "max_tokens", "seed", "top_logprobs")
        await asyncio.gather(*(change(served, parameters=P(**{name: 5})) for name in names))
        parameters = (await get(served)).config.parameters
        assert [getattr(parameters, name) for name in names] == [5, 5, 5, 5]


async def test_validation_changes_nothing_and_shows_what_would_be() -> None:
    async with serving({"set": configured()}) as served:
        before = await get(served)
        would = await change(served, model="b", parameters=P(top_k=3), validate_only=True)
        assert (would.config.model, would.config.parameters.top_k) == ("b", 3)
        assert would.etag != before.etag
        assert await get(served) == before
        assert (await change(served, model="b", parameters=P(top_k=3))).etag == would.etag
        assert (await failure(change(served, max_retries=99, validate_only=True))).fields == ["config.max_retries"]


async def test_running_request_keeps_its_configuration() -> None:
    async with serving({"set": configured(provider_options={})}) as served:
        stream = served.generation.StreamGenerate(request("a b c d e f", delay=0.03))
        await stream.read()
        await change(served, model="b", parameters=P(max_tokens=1, stop=["b"]), system_prompt="new")
        texts = []
        while (event := await stream.read()) and event.WhichOneof("event") == "text_delta":
            texts.append(event.text_delta.text)
        assert "".join(texts) == "a b c d e f"
        after = await served.generation.Generate(request("a b c"))
        assert (after.text, after.model) == ("a", "b")
        running, next_one = served.scripted().requests
        assert (running.parameters.model, running.system_prompt) == ("a", "be kind")
        assert (next_one.parameters.model, next_one.system_prompt) == ("b", "new")


async def test_change_is_for_one_llm_alone() -> None:
    async with serving({"set": configured(), "other": configured()}) as served:
        await change(served, model="b")
        other = await served.config.GetConfig(pb.GetConfigRequest(llm="other"))
        assert other.config.model == "a"
        assert (await collect(served.generation.StreamGenerate(request(llm="other"))))[0].started.model == "a"


async def test_a_default_that_the_llm_does_not_take_is_refused_and_changes_nothing() -> None:
    limited = ScriptedProvider(CONFIG, capabilities=Capabilities(parameters=("temperature", "stop", "logit_bias")))
    async with serving({"set": limited}) as served:
        before = await get(served)
        refused = await failure(change(served, parameters=P(top_k=3), provider_options={}))
        assert refused.reason == "UNSUPPORTED_PARAMETER"
        assert refused.metadata["field"] == "config.parameters.top_k"
        assert await get(served) == before
