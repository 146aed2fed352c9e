"""ModelService: what there is, what it can do, what is cached."""

import base64
from typing import Any

import pytest

from abstractllm.errors import ModelInUseError
from abstractllm.testing import ScriptedProvider
from abstractllm.types import CachedModel, Capabilities
from abstractllm_api.v1 import models_pb2 as pb
from tests.server.support import Serving, failure, request, serving
from tests.waiting import until


async def test_llms_are_listed_by_name_with_their_states() -> None:
    llms = {
        "b": ScriptedProvider({"model": "m1"}),
        "a": ScriptedProvider({"load_delay": 3000}),
        "c": ScriptedProvider({"load_error": "no weights \ud800"}),
    }
    async with serving(llms, preload=("a", "b", "c")) as served:
        await until(lambda: llms["c"].state[0] == "failed")
        stream = served.generation.StreamGenerate(request(script=[{"text": "x"}, {"delay": 3000}]))
        await stream.read()
        infos = (await served.models.ListLlms(pb.ListLlmsRequest())).llms
        stream.cancel()
    assert [(llm.name, llm.provider, llm.model, llm.is_default) for llm in infos] == [
        ("a", "scripted", "script", False),
        ("b", "scripted", "m1", True),
        ("c", "scripted", "script", False),
    ]
    assert [pb.LlmState.Name(llm.state) for llm in infos] == [
        "LLM_STATE_LOADING",
        "LLM_STATE_READY",
        "LLM_STATE_FAILED",
    ]
    assert infos[2].state_reason == "no weights \ufffd"
    assert [llm.running for llm in infos] == [0, 1, 0]
    assert not any(llm.HasField("memory_bytes") for llm in infos)


async def test_capabilities_are_those_of_the_llm() -> None:
    known = Capabilities(
        tools=True,
        seed=True,
        parameters=("temperature", "seed"),
        provider_options=("x",),
        context_window=4096,
        quantization="int8",
        device="cpu",
        max_concurrent_requests=0,
    )
    async with serving({"echo": ScriptedProvider(capabilities=known)}) as served:
        answer = (await served.models.GetCapabilities(pb.GetCapabilitiesRequest())).capabilities
    assert [name for name in ("streaming", "tools", "seed", "image_input", "regex") if getattr(answer, name)] == [
        "streaming",
        "tools",
        "seed",
    ]
    assert (list(answer.parameters), list(answer.provider_options)) == (["temperature", "seed"], ["x"])
    assert (answer.context_window, answer.quantization, answer.device) == (4096, "int8", "cpu")
    assert (answer.HasField("max_output_tokens"), answer.HasField("max_concurrent_requests")) == (False, True)


async def test_llm_without_a_cache_is_unimplemented(served: Serving) -> None:
    for call in (
        served.models.ListCachedModels(pb.ListCachedModelsRequest(llm="echo")),
        served.models.ClearCache(pb.ClearCacheRequest(llm="echo", all=pb.AllModels())),
    ):
        assert (await failure(call)).reason == "UNSUPPORTED_FEATURE"


class Caching(ScriptedProvider):
    """Has a cache in memory."""

    def __init__(self, names: list[str], **config: Any) -> None:
        super().__init__(config)
        self.names = names
        self.cleared: list[tuple[str | None, bool]] = []

    async def cached_models(self) -> list[CachedModel]:
        return [
            CachedModel(
                name,
                ("r1", "r2"),
                10,
                last_modified_time=1_700_000_000.25,
                used_by=("disk",) if name == "a" else (),
                partial=name == "b",
            )
            for name in self.names
        ]

    async def clear_cache(self, model: str | None, *, dry_run: bool = False) -> tuple[list[str], int]:
        self.cleared.append((model, dry_run))
        if model == "used":
            raise ModelInUseError("model used is used by it", field="model")
        removed = [name for name in self.names if model in (None, name)]
        return removed, 10 * len(removed)


async def listed(served: Serving, **fields: Any) -> pb.ListCachedModelsResponse:
    return await served.models.ListCachedModels(pb.ListCachedModelsRequest(llm="disk", **fields))


async def test_cached_models_are_listed_by_name_with_their_facts() -> None:
    async with serving({"disk": Caching(["c", "a", "b"])}) as served:
        answer = await listed(served)
    first, second, third = answer.models
    assert [model.name for model in answer.models] == ["a", "b", "c"]
    assert (list(first.revisions), first.size_bytes) == (["r1", "r2"], 10)
    assert (first.last_modified_time.ToMilliseconds(), first.HasField("last_used_time")) == (1_700_000_000_250, False)
    assert (list(first.used_by), list(second.used_by)) == (["disk"], [])
    assert (second.partial, third.partial) == (True, False)
    assert answer.next_page_token == ""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 1000])
async def test_pages_joined_are_the_whole_list(size: int) -> None:
    names = ["org/model-1", "org/model-2", "Org/x", "漢字", "a b", "z", "\udcff", "\uffff"]
    async with serving({"disk": Caching(names)}) as served:
        listed_names: list[str] = []
        token, pages = "", 0
        while pages == 0 or token:
            answer = await listed(served, page_size=size, page_token=token)
            assert len(answer.models) <= size
            listed_names += [model.name for model in answer.models]
            token, pages = answer.next_page_token, pages + 1
    assert listed_names == [name.replace("\udcff", "\ufffd") for name in sorted(names)]
    assert pages == -(-len(names) // size)


async def test_default_page_holds_a_hundred() -> None:
    async with serving({"disk": Caching([f"m{index:03}" for index in range(101)])}) as served:
        first = await listed(served)
        second = await listed(served, page_token=first.next_page_token)
    assert (len(first.models), len(second.models)) == (100, 1)


@pytest.mark.parametrize("token", ["!!!", "a", "漢字", "****", base64.urlsafe_b64encode(b"\xff\xfe").decode(), "YQ== "])
async def test_page_token_that_is_none_is_refused(token: str) -> None:
    async with serving({"disk": Caching(["a"])}) as served:
        error = await failure(listed(served, page_token=token))
    assert (error.code.name, error.reason, error.fields) == ("INVALID_ARGUMENT", "INVALID_REQUEST", ["page_token"])


async def test_clearing_tells_what_is_gone_and_a_dry_run_what_would_be() -> None:
    disk = Caching(["a", "b"])
    async with serving({"disk": disk}) as served:
        one = await served.models.ClearCache(pb.ClearCacheRequest(llm="disk", model="a"))
        dry = await served.models.ClearCache(pb.ClearCacheRequest(llm="disk", all=pb.AllModels(), dry_run=True))
        every = await served.models.ClearCache(pb.ClearCacheRequest(llm="disk", all=pb.AllModels()))
    assert (list(one.removed), one.freed_bytes) == (["a"], 10)
    assert (list(dry.removed), dry.freed_bytes) == (list(every.removed), every.freed_bytes) == (["a", "b"], 20)
    assert disk.cleared == [("a", False), (None, True), (None, False)]


async def test_empty_target_clears_nothing_and_a_used_model_stays() -> None:
    disk = Caching(["a"])
    async with serving({"disk": disk}) as served:
        for message in (pb.ClearCacheRequest(llm="disk"), pb.ClearCacheRequest(llm="disk", model="")):
            error = await failure(served.models.ClearCache(message))
            assert (error.code.name, error.reason, error.fields) == ("INVALID_ARGUMENT", "INVALID_REQUEST", ["target"])
        assert disk.cleared == []
        error = await failure(served.models.ClearCache(pb.ClearCacheRequest(llm="disk", model="used")))
        assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "MODEL_IN_USE")


async def test_empty_name_means_the_local_engines_cache(served: Serving) -> None:
    """Also where no local LLM is configured; the home folder of this test has no cache."""
    answer = await served.models.ListCachedModels(pb.ListCachedModelsRequest())
    assert len(answer.models) == 0
    error = await failure(served.models.ClearCache(pb.ClearCacheRequest(model="../../etc")))
    assert (error.code.name, error.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
