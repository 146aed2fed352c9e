"""Adapters: merged into their model, or refused by name, and never ignored."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from abstractllm.errors import ConfigurationError, ModelLoadError, ModelNotFoundError
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm.providers.huggingface.worker.checkpoint import adapters
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.tiny_models import build

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

PROMPT = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])


def load(directory: Path | str, **config: Any) -> LoadedModel:
    values = {"model": str(directory), "threads": 1, "dtype": "float32", **config}
    return load_model(HuggingFaceConfig.parse(values).load_settings(), lambda phase, fraction=None: None)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        values = model(input_ids=PROMPT).logits
    assert isinstance(values, torch.Tensor)
    return values


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "base", "llama")


@pytest.fixture
def written(base: Path, tmp_path: Path) -> Path:
    """An adapter's configuration and weights, without peft."""
    folder = tmp_path / "written"
    folder.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": 2}
    (folder / adapters.CONFIG_NAME).write_text(json.dumps(config), "utf-8")
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    return folder


def make_adapter(base: Path, folder: Path, kind: str = "LoraConfig", **changes: Any) -> torch.Tensor:
    """Writes an adapter with random weights; returns the logits of the model that it is applied to."""
    import peft

    torch.manual_seed(1)
    if kind == "LoraConfig":
        changes = {"r": 4, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False, **changes}
    config = getattr(peft, kind)(task_type="CAUSAL_LM", **changes)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    model.eval()
    model.save_pretrained(folder)
    return logits(model)


@needs_peft
@pytest.mark.parametrize("beside_weights", [False, True])
def test_an_adapter_beside_weights_or_alone_is_merged(base: Path, tmp_path: Path, beside_weights: bool) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "adapter")) if beside_weights else tmp_path / "adapter"
    expected = make_adapter(base, folder)
    loaded = load(folder)
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    assert not [name for name, _ in loaded.model.named_parameters() if "lora" in name]
    assert torch.allclose(logits(loaded.model), expected, atol=1e-4)
    assert not torch.allclose(logits(load(base).model), expected, atol=0.1)


@needs_peft
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("LoraConfig", {"use_dora": True}),
        ("LoraConfig", {"target_modules": ["lm_head", "q_proj"]}),
        ("LoraConfig", {"modules_to_save": ["lm_head"]}),
        ("LoHaConfig", {"r": 2, "target_modules": ["v_proj"], "init_weights": False}),
        ("IA3Config", {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    ],
    ids=str,
)
def test_adapters_of_other_kinds_are_merged(base: Path, tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    expected = make_adapter(base, tmp_path / "adapter", kind, **changes)
    assert torch.allclose(logits(load(tmp_path / "adapter").model), expected, atol=1e-4)


@needs_peft
def test_an_adapter_of_the_cache_is_merged_into_a_model_of_the_cache(base: Path, tmp_path: Path) -> None:
    for name in ("base", "adapter"):
        (tmp_path / f"models--org--{name}" / "refs").mkdir(parents=True)
        (tmp_path / f"models--org--{name}" / "refs" / "main").write_text("a" * 40, "ascii")
    shutil.copytree(base, tmp_path / "models--org--base" / "snapshots" / ("a" * 40))
    folder = tmp_path / "models--org--adapter" / "snapshots" / ("a" * 40)
    expected = make_adapter(base, folder)
    path = folder / adapters.CONFIG_NAME
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "base_model_name_or_path": "org/base"}), "utf-8")
    loaded = load("org/adapter", cache_dir=str(tmp_path), local_files_only=True)
    assert torch.allclose(logits(loaded.model), expected, atol=1e-4)
    shutil.rmtree(tmp_path / "models--org--base")
    with pytest.raises(ModelNotFoundError, match="org/base"):
        load("org/adapter", cache_dir=str(tmp_path), local_files_only=True)


@needs_peft
def test_the_adapters_own_chat_template_is_taken(base: Path, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "adapter")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, tmp_path / "adapter")
    (tmp_path / "adapter" / "chat_template.jinja").write_text("{{ messages[0].content }}!", "utf-8")
    loaded = load(tmp_path / "adapter")
    assert loaded.prompt_builder.template is not None
    assert load(base).prompt_builder._tokenizer.chat_template != "{{ messages[0].content }}!"
    assert loaded.prompt_builder._tokenizer.chat_template == "{{ messages[0].content }}!"


@needs_peft
@pytest.mark.parametrize("fault", ["missing", "foreign", "damaged"])
def test_an_adapter_that_does_not_fit_is_refused(base: Path, tmp_path: Path, fault: str) -> None:
    make_adapter(base, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    key = next(key for key in weights if "layers.1" in key)
    if fault == "missing":
        del weights[key]
    elif fault == "foreign":
        weights[key.replace("layers.1", "layers.7")] = weights[key].clone()
    save_file(weights, path)
    if fault == "damaged":
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelLoadError):
        load(tmp_path / "adapter")


@needs_peft
def test_an_adapter_that_cannot_be_merged_is_refused(base: Path, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "adapter", "PromptTuningConfig", num_virtual_tokens=2)
    with pytest.raises(ModelLoadError, match="PROMPT_TUNING cannot be merged"):
        load(tmp_path / "adapter")


@needs_peft
def test_an_adapter_is_not_merged_into_quantized_weights(written: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be merged into weights in int4") as caught:
        load(written, quantization="int4")
    assert caught.value.field == "quantization"


@needs_peft
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"task_type": "SEQ_CLS"}, ModelLoadError, "for SEQ_CLS, not for a causal language model"),
        ({"base_model_name_or_path": None}, ModelLoadError, "does not name the model that it belongs to"),
        ({"base_model_name_or_path": "/nowhere/base"}, ModelNotFoundError, "/nowhere/base"),
        ({"peft_type": None}, ModelLoadError, "of its adapter cannot be read"),
    ],
)
def test_an_adapter_without_its_model_is_refused(
    written: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    path = written / adapters.CONFIG_NAME
    values = {**json.loads(path.read_text("utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}), "utf-8")
    with pytest.raises(error, match=message):
        load(written, local_files_only=True)


@needs_peft
def test_pickled_weights_of_an_adapter_are_never_loaded(written: Path) -> None:
    (written / "adapter_model.safetensors").rename(written / "adapter_model.bin")
    with pytest.raises(ModelNotFoundError, match=r"there is no adapter_model\.safetensors"):
        load(written)


@pytest.mark.parametrize("beside_weights", [False, True])
def test_without_peft_an_adapter_is_refused_by_name(
    base: Path, written: Path, beside_weights: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters.importlib.util, "find_spec", lambda name: None)
    if beside_weights:
        shutil.copytree(base, written, dirs_exist_ok=True)
    described = "has an adapter .LORA. beside its weights" if beside_weights else "is an adapter .LORA. of "
    with pytest.raises(ConfigurationError, match=rf"{described}.*pip install 'abstractllm-grpc\[adapters\]'") as caught:
        load(written)
    assert caught.value.field == "model"
