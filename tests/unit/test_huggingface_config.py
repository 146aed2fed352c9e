"""The configuration of local LLMs, and what it means to their engine."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from abstractllm.errors import ConfigurationError, ModelLoadError, ModelNotFoundError
from abstractllm.providers.huggingface import HuggingFaceConfig, HuggingFaceProvider
from abstractllm.types import ModelParameter
from tests.unit.tiny_models import build


def test_default_is_the_model_that_comes_with_the_package() -> None:
    settings = HuggingFaceConfig.parse({}).load_settings()
    assert settings.is_directory
    assert Path(settings.model).name == "demo_model"
    assert settings.cache_dir == str(Path("~/.cache/abstractllm/models").expanduser())


def test_model_is_a_directory_or_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "here").mkdir(parents=True)
    expected = {
        str(tmp_path): (str(tmp_path), True),
        "./absent": (str(tmp_path / "absent"), True),
        "~/absent": (str(Path("~/absent").expanduser()), True),
        "org/here": (str(tmp_path / "org" / "here"), True),
        "org/there": ("org/there", False),
        "gpt2": ("gpt2", False),
    }
    for model, meaning in expected.items():
        settings = HuggingFaceConfig.parse({"model": model}).load_settings()
        assert (settings.model, settings.is_directory) == meaning


def test_a_link_to_a_model_is_followed_anew_for_each_request(tmp_path: Path) -> None:
    config = HuggingFaceConfig.parse({"model": str(tmp_path / "link")})
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(name)
        assert config.load_settings().model == str(tmp_path / name)


def test_looking_up_the_model_of_a_request_takes_few_calls(tmp_path: Path) -> None:
    config = HuggingFaceConfig.parse({"model": str(tmp_path)})
    config.load_settings()
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        config.load_settings()
    finally:
        sys.setprofile(None)
    assert calls < 100


def test_flags_are_read_as_quantization() -> None:
    llm = HuggingFaceProvider({ModelParameter.LOAD_IN_8BIT: True})
    assert llm.get_config()["quantization"] == "int8"
    assert llm.set_config(load_in_4bit=True)["quantization"] == "int4"
    assert llm.set_config(load_in_4bit=False)["quantization"] == "none"
    for wrong in ({"load_in_8bit": True, "load_in_4bit": True}, {"load_in_8bit": "yes"}):
        with pytest.raises(ConfigurationError):
            HuggingFaceProvider(wrong)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"models": ["a", ""]}, "models[1]"),
        ({"kv_cache_bytes": "3 apples"}, "kv_cache_bytes"),
        ({"dtype": "float8"}, "dtype"),
        ({"keep_alive": 0}, "keep_alive"),
        ({"max_queue": -1}, "max_queue"),
        ({"threads": 0}, "threads"),
        ({"gpu_memory_utilization": 0}, "gpu_memory_utilization"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
        ({"tp_plan": "auto"}, "tp_plan"),
        ({"modle": "x"}, "modle"),
    ],
)
def test_wrong_key_or_value_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        HuggingFaceProvider(config)
    assert failure.value.field == field


def test_offline_environment_is_the_default_of_local_files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert HuggingFaceConfig.parse({}).load_settings().local_files_only
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert not HuggingFaceConfig.parse({}).load_settings().local_files_only


def load(**config: Any) -> Any:
    """Loads a model in this process, as the engine does in its own."""
    from abstractllm.providers.huggingface.worker.loading import load_model

    def report(phase: str, fraction: float | None = None) -> None:
        assert phase

    return load_model(HuggingFaceConfig.parse({"threads": 1, **config}).load_settings(), report)


def test_model_that_is_not_cached_is_not_found_offline(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="org/absent"):
        load(model="org/absent", cache_dir=str(tmp_path), local_files_only=True)


def test_malformed_hub_id_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="a/b/c: there is no such directory, and this cannot be a name"):
        load(model="a/b/c", cache_dir=str(tmp_path), local_files_only=True)


def test_directory_without_a_model_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"there is no config\.json"):
        load(model=str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="there is no directory"):
        load(model=str(tmp_path / "absent"))


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    build(tmp_path, "llama")
    weights = tmp_path / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelNotFoundError, match=r"no weights in safetensors: .*; pytorch_model\.bin cannot be read"):
        load(model=str(tmp_path))


@pytest.mark.parametrize(
    ("missing", "error", "message"),
    [
        ("config.json", ModelNotFoundError, r"there is no config\.json"),
        ("model.safetensors", ModelNotFoundError, r"no model\.safetensors and no model\.safetensors\.index\.json"),
        ("tokenizer.json", ModelLoadError, r"there is no tokenizer: neither tokenizer\.json"),
    ],
)
@pytest.mark.parametrize("is_cached", [False, True])
def test_a_file_that_is_missing_is_named(
    tmp_path: Path, missing: str, error: type[Exception], message: str, is_cached: bool
) -> None:
    repository = tmp_path / "models--org--tiny"
    folder = build(repository / "snapshots" / ("a" * 40), "llama")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40, "ascii")
    (folder / missing).unlink()
    if is_cached:
        config = {"model": "org/tiny", "cache_dir": str(tmp_path), "local_files_only": True}
        if error is ModelNotFoundError:
            message = f"org/tiny is not whole in the cache .*{message}"
    else:
        config = {"model": str(folder)}
    with pytest.raises(error, match=message) as caught:
        load(**config)
    assert getattr(caught.value, "field", "") == "model"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_a_file_that_is_missing(tmp_path: Path, name: str) -> None:
    build(tmp_path, "llama")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 16060522904\n"
    (tmp_path / name).write_text(pointer, "ascii")
    with pytest.raises(
        ModelNotFoundError, match=f"1 of its files .* are pointers of Git LFS.*: {re.escape(name)}"
    ) as caught:
        load(model=str(tmp_path))
    assert caught.value.field == "model"


@pytest.mark.parametrize("name", ["llama-3-8b.Q4_K_M.gguf", "model.safetensors"])
def test_a_file_in_place_of_a_directory_is_named_as_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ModelNotFoundError, match=f"{re.escape(name)}: it is a file, and a model is the directory"):
        load(model=str(tmp_path / name))


def test_shards_that_are_missing_are_named(tmp_path: Path) -> None:
    import transformers

    build(tmp_path, "llama")
    transformers.LlamaForCausalLM.from_pretrained(tmp_path).save_pretrained(tmp_path, max_shard_size="40kB")
    (tmp_path / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert load(model=str(tmp_path))
    shards[1].unlink()
    with pytest.raises(ModelNotFoundError, match=f"1 of its {len(shards)} files of weights .*: {shards[1].name}"):
        load(model=str(tmp_path))


@pytest.mark.parametrize("ending", [".gguf", ".pt", ".pth", ".ckpt", ".h5", ".onnx"])
def test_weights_of_other_formats_are_named(tmp_path: Path, ending: str) -> None:
    build(tmp_path, "llama")
    (tmp_path / "model.safetensors").rename(tmp_path / f"model{ending}")
    with pytest.raises(ModelNotFoundError, match=f"model{ending} cannot be read: only safetensors are"):
        load(model=str(tmp_path))


def test_damaged_weights_cannot_be_loaded(tmp_path: Path) -> None:
    build(tmp_path, "llama")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match=r"model\.safetensors is damaged"):
        load(model=str(tmp_path))


def test_code_of_a_model_is_not_run_unless_trusted(tmp_path: Path) -> None:
    build(tmp_path, "llama")
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')", "utf-8")
    text = (tmp_path / "config.json").read_text("utf-8").replace('"model_type": "llama"', '"model_type": "evil"')
    text = '{"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},' + text[1:]
    (tmp_path / "config.json").write_text(text, "utf-8")
    with pytest.raises(ModelLoadError, match="trust_remote_code"):
        load(model=str(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"attn_implementation": "flash_attention_2"}, "flash_attention_2 needs its package"),
        ({"attn_implementation": "flash_attention_3"}, "flash_attention_3 needs its package"),
        ({"device_map": "cuda:0"}, "cuda:0 is a CUDA device, and this machine has none"),
        ({"device_map": {"": 0}}, "0 is a CUDA device"),
    ],
)
def test_what_the_machine_lacks_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], message: str
) -> None:
    from abstractllm.providers.huggingface.worker import loading

    monkeypatch.setattr(loading.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(loading, "_FLASH_PACKAGES", dict.fromkeys(loading._FLASH_PACKAGES, lambda: False))
    with pytest.raises(ConfigurationError, match=message) as failure:
        load(model=str(build(tmp_path, "llama")), **config)
    assert failure.value.field == next(iter(config))


@pytest.mark.parametrize("name", ["kernels-community/flash-attn2", "flex_attention", "nonsense"])
def test_no_attention_is_fetched_from_a_hub(name: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        HuggingFaceConfig.parse({"attn_implementation": name})
    assert failure.value.field == "attn_implementation"


@pytest.mark.parametrize(
    ("config", "dtype", "attention"),
    [
        ({"dtype": "float32"}, "float32", "sdpa"),
        ({"dtype": "bfloat16", "device_map": "auto"}, "bfloat16", "sdpa"),
        ({"dtype": "float16", "device_map": "cpu"}, "float16", "sdpa"),
        ({"attn_implementation": "eager", "device_map": {"": "cpu"}}, "float32", "eager"),
        ({"attn_implementation": "sdpa"}, "float32", "sdpa"),
    ],
)
def test_precision_place_and_attention_are_as_configured(
    tmp_path: Path, config: dict[str, Any], dtype: str, attention: str
) -> None:
    loaded = load(model=str(build(tmp_path, "llama")), **config)
    assert (loaded.description.dtype, loaded.description.device) == (dtype, "cpu")
    assert loaded.model.config._attn_implementation == attention


def test_a_model_partly_on_the_disk_is_answered_one_request_at_a_time(tmp_path: Path) -> None:
    import torch

    from abstractllm.providers.huggingface.worker.batching.start import start

    names = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")
    where = {**dict.fromkeys(names, "cpu"), "model.embed_tokens": "disk", "model.layers.1": "disk"}
    directory = str(build(tmp_path, "llama"))
    spread, whole = load(model=directory, device_map=where), load(model=directory)
    assert spread.description.device == "cpu"
    settings = HuggingFaceConfig.parse({"model": directory}).load_settings()
    assert start(spread, settings, send=lambda _: None, end=lambda _: None, crash=lambda: None) is None
    assert "several devices" in spread.description.note
    prompt = torch.arange(5, 15).unsqueeze(0)
    answers = [
        each.model.generate(prompt.to(each.device), max_new_tokens=8, do_sample=False).tolist()
        for each in (spread, whole)
    ]
    assert answers[0] == answers[1]


def test_a_pinned_revision_is_the_one_that_is_loaded(tmp_path: Path) -> None:
    commits = {"main": "a" * 40, "v1": "b" * 40}
    repository = tmp_path / "models--org--tiny"
    for index, (name, commit) in enumerate(commits.items()):
        build(repository / "snapshots" / commit, "llama", seed=index)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(commit, "ascii")

    def weights(**config: Any) -> Any:
        loaded = load(model="org/tiny", cache_dir=str(tmp_path), local_files_only=True, **config)
        return loaded.model.lm_head.weight.sum().item()

    assert weights() == weights(revision="main") == weights(revision="a" * 40)
    assert weights(revision="v1") == weights(revision="b" * 40) != weights()
    with pytest.raises(ModelNotFoundError):
        weights(revision="v2")


def test_code_of_a_model_runs_where_it_is_trusted(tmp_path: Path) -> None:
    build(tmp_path, "llama")
    (tmp_path / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n\n\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n",
        "utf-8",
    )
    text = (tmp_path / "config.json").read_text("utf-8").replace('"model_type": "llama"', '"model_type": "own"')
    text = '{"auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},' + text[1:]
    (tmp_path / "config.json").write_text(text, "utf-8")
    with pytest.raises(ModelLoadError, match="trust_remote_code"):
        load(model=str(tmp_path))
    assert type(load(model=str(tmp_path), trust_remote_code=True).model).__name__ == "OwnModel"


def test_loaded_model_is_described(tmp_path: Path) -> None:
    import torch

    description = load(model=str(build(tmp_path, "qwen3", dtype=torch.float16)), dtype="float32").description
    assert (description.dtype, description.quantization, description.context_window) == ("float32", "", 128)
    assert description.memory_bytes > 10_000
    assert description.system_prompt
