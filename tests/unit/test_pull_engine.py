"""A model that is downloaded and one that is loaded are the same model: both at a time, offline, and while in use."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from abstractllm import ConfigurationError, LlmState, ModelInUseError, ModelNotFoundError
from abstractllm.providers.huggingface import HuggingFaceProvider
from tests.fake_hub import FakeHub, files_of
from tests.pull_support import MODEL, break_off, listed, llm_of, pull
from tests.unit.tiny_models import build
from tests.waiting import until


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A tiny model that can be loaded."""
    return files_of(build(tmp_path_factory.mktemp("tiny") / "model", "llama", chat=False))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache that is not there yet."""
    return tmp_path / "cache"


async def test_a_downloaded_model_is_loaded_offline_and_kept_while_in_use(
    hub: FakeHub, root: Path, files: dict[str, bytes]
) -> None:
    hub.add(MODEL, files)
    async with llm_of(root) as llm:
        await pull(llm)
    before = len(hub.requests)
    async with llm_of(root, local_files_only=True, temperature=0) as llm:
        llm.name = "local"
        assert await llm.generate_async("one two", max_tokens=3)
        assert len(hub.requests) == before
        assert [model.used_by for model in await llm.cached_models()] == [("local",)]
        for model in (MODEL, None):
            with pytest.raises(ModelInUseError, match="local"):
                await llm.clear_cache(model)
        async for _ in llm.unload():
            pass
        assert [model.used_by for model in await llm.cached_models()] == [()]
        assert (await llm.clear_cache(MODEL))[0] == [MODEL]


async def test_download_and_load_at_the_same_time_fetch_each_file_once(
    hub: FakeHub, root: Path, files: dict[str, bytes]
) -> None:
    hub.add(MODEL, files)
    hub.pace = len(files["model.safetensors"]) // 4
    async with llm_of(root) as llm:
        reports, text = await asyncio.gather(pull(llm), llm.generate_async("one two", max_tokens=3))
        assert reports[-1].done and text
        assert llm.state[0] is LlmState.READY
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest()
    whole = [request for request in hub.requests if request.method == "GET" and digest in request.path]
    assert len(whole) == 1
    assert listed(root) == {MODEL: False}


async def test_offline_a_model_that_is_not_whole_is_not_loaded_and_said_to_be_missing(
    hub: FakeHub, root: Path, files: dict[str, bytes]
) -> None:
    hub.add(MODEL, files)
    hub.pace = len(files["model.safetensors"]) // 4
    async with llm_of(root) as llm:
        await break_off(llm)
        await until(lambda: not hub.open)
    assert listed(root) == {MODEL: True}
    async with llm_of(root, local_files_only=True) as llm:
        with pytest.raises(ModelNotFoundError) as caught:
            await llm.load()
    assert re.search(rf"model {MODEL} is not (whole )?in the cache", caught.value.message)


async def test_weights_that_the_hub_lacks_are_named(hub: FakeHub, root: Path, files: dict[str, bytes]) -> None:
    weights = files["model.safetensors"]
    others = {name: content for name, content in files.items() if name != "model.safetensors"}
    hub.add(MODEL, {**others, "pytorch_model.bin": weights})
    async with llm_of(root) as llm:
        with pytest.raises(ModelNotFoundError, match=r"no model\.safetensors and no model\.safetensors\.index\.json"):
            await llm.load()


async def test_an_adapter_of_the_hub_is_called_one(hub: FakeHub, root: Path) -> None:
    adapter = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "org/absent", "r": 2}
    weights = save({"x": torch.zeros(1)})
    hub.add(MODEL, {"adapter_config.json": json.dumps(adapter).encode(), "adapter_model.safetensors": weights})
    async with llm_of(root) as llm:
        with pytest.raises((ModelNotFoundError, ConfigurationError), match=f"{MODEL} is an adapter"):
            await llm.load()
        with pytest.raises(ModelNotFoundError, match="it is an adapter"):
            await pull(llm)


async def test_what_another_process_has_loaded_is_not_deleted(
    hub: FakeHub, root: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine process holds the lock, so it does not matter whose it is."""
    hub.add(MODEL, files)
    async with llm_of(root) as llm:
        await llm.load()
        monkeypatch.setattr(HuggingFaceProvider, "models_in_use", [])
        with pytest.raises(ModelInUseError, match="another process uses it"):
            await llm.clear_cache(MODEL)
        assert listed(root) == {MODEL: False}
    assert HuggingFaceProvider.clear_model_cache(MODEL, str(root)).removed == (MODEL,)
