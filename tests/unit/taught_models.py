"""Tiny models that have learned a few answers by heart, so that what they write is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.tiny_models import build

_STEPS = 600


@dataclass(frozen=True)
class Lesson:
    """A conversation as chat templates take it, and its answer."""

    messages: Sequence[Mapping[str, Any]]
    answer: str
    """Texts of special tokens become these."""
    tools: Sequence[Mapping[str, Any]] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)


def teach(directory: Path, template: str, lessons: Sequence[Lesson], special: Sequence[str] = ()) -> Path:
    """Writes a checkpoint that gives, greedily, each lesson's answer.

    Args:
        directory: Where to.
        template: The chat template.
        lessons: What to learn.
        special: Further special tokens.
    """
    import torch
    import transformers

    build(directory, "llama", max_position_embeddings=1024)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(directory)
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"additional_special_tokens": [*special, "<|im_start|>", "<|im_end|>"]})
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(directory)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows, targets = [], []
    for lesson in lessons:
        prompt = tokenizer.apply_chat_template(
            lesson.messages,
            tools=lesson.tools or None,
            add_generation_prompt=True,
            return_dict=False,
            **lesson.variables,
        )
        answer = [*tokenizer(lesson.answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append(torch.tensor([*prompt, *answer]))
        targets.append(torch.tensor([-100] * len(prompt) + answer))
    inputs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.eos_token_id)
    labels = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more only wait for each other on work this small
    try:
        _learn(model, inputs, labels)
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _learn(model: Any, inputs: Any, labels: Any) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    for _ in range(_STEPS):
        logits = model(inputs).logits[:, :-1]
        wanted = labels[:, 1:]
        is_answer = wanted != -100
        if (logits.argmax(-1) == wanted)[is_answer].all() and logits.softmax(-1).max(-1).values[is_answer].min() > 0.9:
            return
        loss = torch.nn.functional.cross_entropy(logits[is_answer], wanted[is_answer])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"not learned in {_STEPS} steps")
