"""A loaded model with everything that generating with it needs."""

from __future__ import annotations

from typing import Any

import torch

from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface.protocol.messages import Load, Loaded
from abstractllm.providers.huggingface.worker.checkpoint.positions import context_window
from abstractllm.providers.huggingface.worker.generation_errors import is_out_of_memory
from abstractllm.providers.huggingface.worker.generation_rules import read_rules
from abstractllm.providers.huggingface.worker.prompt.prompt_builder import PromptBuilder
from abstractllm.providers.huggingface.worker.structured.grammars import Grammars
from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder

__all__ = ["LoadedModel"]


class LoadedModel:
    """A model that is ready to generate.

    Args:
        model: A transformers causal language model.
        tokenizer: Its tokenizer.
        settings: The settings that it was loaded by.
        note: A remark on how it was loaded, for those who ask for the LLM's state.

    Raises:
        ConfigurationError: If the checkpoint comes quantized in another way than the settings ask for, or the context
            window that they ask for is longer than the model has positions.
        ModelLoadError: If the model's generation configuration asks for something that is not supported.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: Load, note: str = "") -> None:
        self.model = model
        self.token_decoder = TokenDecoder(tokenizer)
        self.vocabulary_size: int = model.get_output_embeddings().weight.shape[0]
        """The number of logits at each position."""
        self.prompt_builder = PromptBuilder(tokenizer, model.get_input_embeddings().weight.shape[0])
        self.ends = _end_tokens(model, tokenizer) | self.prompt_builder.template.turn_ends
        """The tokens that end an answer."""
        self.rules = read_rules(model.generation_config, self.vocabulary_size, self.ends)
        """The rules of the model's generation configuration."""
        template = self.prompt_builder.template
        self.grammars = Grammars(
            tokenizer, self.token_decoder, self.vocabulary_size, self.ends, template.special_markers
        )
        window = context_window(model, tokenizer, settings.context_window)
        embeddings = model.get_input_embeddings().weight.device
        self.device = torch.device("cpu") if embeddings.type == "meta" else embeddings
        """The device of prompts; for weights that are on the disk, which have the device "meta", it is the CPU."""
        self.description = Loaded(
            device=str(self.device),
            memory_bytes=model.get_memory_footprint(),
            dtype=str(model.dtype).removeprefix("torch."),
            quantization=_quantization(model, settings),
            context_window=window,
            max_characters=self.token_decoder.max_characters(window),
            system_prompt=self.prompt_builder.takes_system_prompt(),
            chat=self.prompt_builder.takes_chat(),
            formats=not self.grammars.unavailable,
            tools=template.call_format is not None,
            effort=template.takes_effort,
            note="; ".join(filter(None, (note, template.note))),
        )

    def recover(self, error: Exception) -> None:
        """Makes the model usable again after a failed request.

        Raises:
            torch.AcceleratorError: If the device is unusable, which must end the process.
        """
        if is_out_of_memory(error):
            torch.cuda.empty_cache()  # does nothing where CUDA is not used
        elif isinstance(error, torch.AcceleratorError):
            raise error


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Returns the end tokens of the model's generation configuration and of the tokenizer."""
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(id for id in (*ends, tokenizer.eos_token_id) if id is not None)


def _quantization(model: Any, settings: Load) -> str:
    """Returns `int8` or `int4`, or the method of a checkpoint that comes quantized in another way.

    Raises:
        ConfigurationError: If the checkpoint comes quantized in another way than the settings ask for.
    """
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return ""
    facts = config if isinstance(config, dict) else config.to_dict()
    method = str(getattr(facts.get("quant_method", ""), "value", facts.get("quant_method", "")))
    if method == "bitsandbytes":
        method = "int8" if facts.get("load_in_8bit") else "int4"
    if settings.quantization not in ("none", method):
        raise ConfigurationError(
            f"quantization: {settings.quantization} is asked for, but the checkpoint comes in {method}, "
            "which is taken as it is",
            field="quantization",
        )
    return method
