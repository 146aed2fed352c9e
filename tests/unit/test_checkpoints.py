"""Checkpoints that transformers loads with no more than a warning: what is missing, or of another model, is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from abstractllm.errors import ModelLoadError
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.architectures import ARCHITECTURES, Architecture, model_of, tokenizer
from tests.unit.tiny_models import build

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

Weights = dict[str, torch.Tensor]


def load(directory: Path, **config: Any) -> LoadedModel:
    settings = HuggingFaceConfig.parse({"model": str(directory), "threads": 1, **config}).load_settings()
    return load_model(settings, lambda phase, fraction=None: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture
def directory(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def rewrite(directory: Path, change: Callable[[Weights], Weights]) -> Path:
    """Changes the weights of a checkpoint."""
    weights = change(load_file(directory / "model.safetensors"))
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def configure(directory: Path, **changes: Any) -> Path:
    """Changes the configuration of a checkpoint; None takes a key away."""
    path = directory / "config.json"
    config = {**json.loads(path.read_text("utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}), "utf-8")
    return directory


def without(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: value for key, value in weights.items() if not any(part in key for part in parts)}


def test_whole_checkpoint_is_loaded(directory: Path) -> None:
    assert load(directory).description.context_window == 128


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_each_architecture_is_loaded_as_it_was_saved(tmp_path: Path, architecture: Architecture) -> None:
    """Nothing counts as missing or left out that is not."""
    model = model_of(architecture).eval()
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    prompt = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        loaded = load(tmp_path, dtype="float32").model
        assert torch.equal(loaded(input_ids=prompt).logits, model(input_ids=prompt).logits)


@pytest.mark.parametrize(
    "part", ["lm_head.weight", "embed_tokens.weight", "layers.1.mlp.down_proj.weight", "model.norm.weight"]
)
def test_weights_that_are_missing_are_named(directory: Path, part: str) -> None:
    rewrite(directory, without(part))
    with pytest.raises(
        ModelLoadError, match=f"weights of LlamaForCausalLM are not in its checkpoint: .*{part}"
    ) as caught:
        load(directory)
    assert caught.value.field == "model"


def test_many_missing_weights_are_counted(directory: Path) -> None:
    rewrite(directory, without("layers.1.", "lm_head"))
    with pytest.raises(ModelLoadError, match=r"lm_head.weight, .* and 5 more"):
        load(directory)


def test_weights_that_are_tied_are_not_missing(directory: Path) -> None:
    rewrite(directory, without("lm_head"))
    model = load(configure(directory, tie_word_embeddings=True)).model
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_weights_that_are_tied_are_there_under_one_of_their_names(directory: Path) -> None:
    rewrite(directory, without("embed_tokens"))
    model = load(configure(directory, tie_word_embeddings=True)).model
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    rewrite(directory, without("lm_head"))
    with pytest.raises(ModelLoadError, match=r"lm_head\.weight, model\.embed_tokens\.weight"):
        load(directory)


def test_weights_of_another_size_are_named_with_both(directory: Path) -> None:
    configure(directory, vocab_size=408)
    with pytest.raises(ModelLoadError, match=r"model.embed_tokens.weight is \[400, 32\] .* and \[408, 32\]"):
        load(directory)


@pytest.mark.parametrize(
    "key",
    [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.1.self_attn.q_norm.weight",
        "model.layers.0.mlp.down_proj.weight_scale_inv",
    ],
)
def test_weights_of_the_layers_that_the_configuration_leaves_out_are_named(directory: Path, key: str) -> None:
    rewrite(directory, lambda weights: {**weights, key: torch.ones(32)})
    with pytest.raises(ModelLoadError, match=f"leaves out: {key}"):
        load(directory)


def test_layers_beyond_those_of_the_configuration_are_named(directory: Path) -> None:
    configure(directory, num_hidden_layers=1)
    with pytest.raises(ModelLoadError, match=r"leaves out: model\.layers\.1\.input_layernorm\.weight"):
        load(directory)


@pytest.mark.parametrize(
    ("key", "tensor"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(8)),
        ("model.layers.0.self_attn.o_proj.bias", torch.zeros(32)),  # some converters write all biases
        ("model.layers.0.self_attn.bias", torch.ones(1, 1, 8, 8)),  # a causal mask, as in old checkpoints
        ("model.layers.0.self_attn.k_scale", torch.ones(1)),
        ("vision_tower.layers.0.mlp.weight", torch.ones(4)),
        ("mtp.layers.0.mlp.weight", torch.ones(4)),
        ("v_head.summary.weight", torch.ones(4)),
    ],
)
def test_what_text_does_not_need_may_be_there(directory: Path, key: str, tensor: torch.Tensor) -> None:
    rewrite(directory, lambda weights: {**weights, key: tensor})
    assert load(directory)


def test_layers_of_multi_token_prediction_may_be_there(directory: Path) -> None:
    configure(directory, num_hidden_layers=1, num_nextn_predict_layers=1)
    assert load(directory).model.config.num_hidden_layers == 1


def test_masks_of_gpt2_may_be_there(tmp_path: Path) -> None:
    build(tmp_path, "gpt2")
    mask = torch.ones(128, 128).tril().view(1, 1, 128, 128)
    rewrite(
        tmp_path,
        lambda weights: {
            **{key.removeprefix("transformer."): value for key, value in weights.items()},
            "h.0.attn.bias": mask,
            "h.1.attn.masked_bias": torch.tensor(-1e4),
        },
    )
    assert load(tmp_path)


def test_adapter_within_the_weights_is_refused(directory: Path) -> None:
    def wrap(weights: Weights) -> Weights:
        key = "model.layers.0.self_attn.q_proj"
        others = {name: value for name, value in weights.items() if name != f"{key}.weight"}
        return {
            **others,
            f"{key}.base_layer.weight": weights[f"{key}.weight"],
            f"{key}.lora_A.default.weight": torch.ones(4, 32),
        }

    rewrite(directory, wrap)
    with pytest.raises(ModelLoadError, match="those of an adapter, which must be merged"):
        load(directory)


@pytest.mark.parametrize("key", ["score.weight", "classifier.weight", "qa_outputs.weight"])
def test_another_head_is_named_even_where_all_else_is_there(directory: Path, key: str) -> None:
    rewrite(directory, without("lm_head"))
    configure(directory, tie_word_embeddings=True, architectures=None)
    rewrite(directory, lambda weights: {**weights, key: torch.ones(2, 32)})
    with pytest.raises(ModelLoadError, match=f"another head than that of LlamaForCausalLM: {key}"):
        load(directory)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("LlamaForSequenceClassification", "a classifier of texts"),
        ("LlamaForTokenClassification", "a classifier of tokens"),
        ("LlamaForQuestionAnswering", "a model that marks answers in a text"),
        ("LlamaForRewardModel", "a reward model"),
    ],
)
def test_other_heads_are_refused_by_what_they_are(directory: Path, architecture: str, kind: str) -> None:
    configure(directory, architectures=[architecture], tie_word_embeddings=True)
    with pytest.raises(ModelLoadError, match=rf"is {kind} \({architecture}\); only causal language models are served"):
        load(directory)


TINY = {
    "vocab_size": 400,
    "hidden_size": 32,
    "d_model": 32,
    "num_hidden_layers": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "num_layers": 1,
    "num_attention_heads": 2,
    "num_heads": 2,
    "d_kv": 16,
    "d_ff": 32,
    "intermediate_size": 64,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 128,
}


def write(directory: Path, class_name: str, **changes: Any) -> Path:
    """Replaces the model in a directory by a small one of another class, with random weights."""
    kind = getattr(transformers, class_name)
    kind(kind.config_class(**{**TINY, **changes})).save_pretrained(directory)
    return directory


@pytest.mark.parametrize(
    ("class_name", "kind"),
    [
        ("BertForMaskedLM", "a masked language model"),
        ("BertModel", "an encoder"),
        ("BertLMHeadModel", "an encoder"),  # not told to be a decoder
        ("BertForSequenceClassification", "a classifier of texts"),
        ("RobertaForMaskedLM", "a masked language model"),
        ("DistilBertModel", "a model of the type distilbert"),
        ("BartForConditionalGeneration", "an encoder-decoder"),
        ("BartModel", "an encoder-decoder"),
        ("T5ForConditionalGeneration", "an encoder-decoder"),
        ("MBartForConditionalGeneration", "an encoder-decoder"),
        ("T5EncoderModel", "a model of the type t5"),
    ],
)
def test_encoders_and_encoder_decoders_are_refused_by_what_they_are(
    directory: Path, class_name: str, kind: str
) -> None:
    write(directory, class_name)
    with pytest.raises(ModelLoadError, match=rf"is {kind} \({class_name}\)|is {kind} \(.*{class_name}"):
        load(directory)


@pytest.mark.parametrize("class_name", ["BertLMHeadModel", "BartForCausalLM"])
def test_decoders_of_such_families_are_served(directory: Path, class_name: str) -> None:
    write(directory, class_name, is_decoder=True)
    assert load(directory)


def test_encoder_that_names_no_architecture_is_refused(directory: Path) -> None:
    configure(write(directory, "BertForMaskedLM"), architectures=None)
    with pytest.raises(ModelLoadError, match=r"is an encoder \(bert\)"):
        load(directory)


def test_model_that_sees_the_tokens_after_a_place_is_refused(tmp_path: Path) -> None:
    """As an embedding model that was made of a decoder, with tied weights, so that nothing is missing."""
    directory = build(tmp_path, "gemma", tie_word_embeddings=True)
    config = transformers.Gemma3TextConfig(**{**TINY, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 700})
    config.use_bidirectional_attention = True
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    configure(directory, architectures=["Gemma3TextModel"])
    with pytest.raises(ModelLoadError, match="is not causal"):
        load(directory)
    configure(directory, use_bidirectional_attention=False)
    assert load(directory)


def test_embedding_model_is_refused_by_what_it_is(directory: Path) -> None:
    modules = [{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Pooling"}]
    (directory / "modules.json").write_text(json.dumps(modules), "utf-8")
    with pytest.raises(ModelLoadError, match="is an embedding model"):
        load(directory)


def test_base_model_without_a_head_is_refused(directory: Path) -> None:
    write(directory, "LlamaModel")
    with pytest.raises(ModelLoadError, match=r"not in its checkpoint: lm_head\.weight"):
        load(directory)


@pytest.mark.parametrize("method", ["exl2", "mlx", None])
def test_weights_that_are_quantized_in_an_unknown_way_are_refused(directory: Path, method: str | None) -> None:
    configure(directory, quantization_config={"quant_method": method, "bits": 4} if method else {"bits": 4})
    with pytest.raises(ModelLoadError, match=f"quantized by {method!r}, which transformers .* does not know"):
        load(directory)


def test_weights_of_whole_numbers_without_a_quantization_are_refused(directory: Path) -> None:
    key = "model.layers.0.mlp.down_proj.weight"
    rewrite(directory, lambda weights: {**weights, key: (weights[key] * 100).to(torch.int8)})
    with pytest.raises(ModelLoadError, match=f"config.json does not say in which way: {key}"):
        load(directory)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(directory: Path, number: float) -> None:
    key = "model.layers.1.mlp.down_proj.weight"
    rewrite(directory, lambda weights: {**weights, key: torch.full_like(weights[key], number)})
    with pytest.raises(ModelLoadError, match=f"its weights are not finite: {key}"):
        load(directory)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_generation_configuration_that_cannot_be_read_is_refused(directory: Path, text: str) -> None:
    (directory / "generation_config.json").write_text(text, "latin-1")
    with pytest.raises(ModelLoadError, match=r"generation_config\.json (cannot be read|is not a JSON object)"):
        load(directory)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_quantized_checkpoint_without_its_scales_is_refused(
    tmp_path_factory: pytest.TempPathFactory, directory: Path, name: str
) -> None:
    large = build(tmp_path_factory.mktemp("large"), "llama", hidden_size=128, intermediate_size=256, head_dim=64)
    load(large, quantization=name).model.save_pretrained(directory)
    assert load(directory)
    scales = {"int8": "SCB", "int4": "absmax"}[name]
    rewrite(
        directory,
        lambda weights: {
            key: value
            for key, value in weights.items()
            if f"layers.1.mlp.down_proj.weight.{scales}" not in key and f"layers.1.mlp.down_proj.{scales}" not in key
        },
    )
    with pytest.raises(ModelLoadError, match=r"layers\.1\.mlp\.down_proj"):
        load(directory)


@pytest.mark.parametrize("dropped", ["experts.1.up_proj.weight", "mlp.gate.weight", "layers.1.mlp.experts.3."])
def test_experts_that_are_missing_are_named(directory: Path, dropped: str) -> None:
    config = AutoConfig.for_model(
        "qwen3_moe", **{**TINY, "num_key_value_heads": 1, "head_dim": 16, "num_experts": 4, "moe_intermediate_size": 16}
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    assert load(directory)
    rewrite(directory, without(dropped))
    with pytest.raises(ModelLoadError, match=r"mlp\.(gate|experts)"):
        load(directory)
