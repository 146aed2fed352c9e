"""Asks a saved model questions and grades its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .evaluation import Question

BATCH = 128


def answers(folder: Path, questions: Sequence[Question]) -> list[str]:
    """Asks a saved model, greedily and in 32-bit floats, as the engine does on a CPU.

    Args:
        folder: A model saved by ``save_pretrained``, with its tokenizer and chat template.
        questions: The questions.

    Returns:
        One answer for each question; an answer that does not end with the model's end token ends with "[no end]".
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    results = [""] * len(questions)
    longest = {index: len(tokenizer(question.expected)["input_ids"]) for index, question in enumerate(questions)}
    order = sorted(longest, key=longest.__getitem__)  # answers of one length together, so that none waits for another
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        inputs = tokenizer.apply_chat_template(
            [list(questions[index].messages) for index in batch],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=longest[batch[-1]] + 8)
        for index, tokens in zip(batch, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            ended = tokenizer.eos_token_id in tokens
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            results[index] = text if ended else text + "[no end]"
    return results


def accuracy(questions: Sequence[Question], replies: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Counts the right answers of each kind: those that equal the expected answer, character for character.

    Args:
        questions: The questions.
        replies: The answers to them, in the same order.

    Returns:
        Kind -> (right answers, questions).
    """
    totals = Counter(question.kind for question in questions)
    right = Counter(q.kind for q, answer in zip(questions, replies, strict=True) if answer == q.expected)
    return {kind: (right[kind], total) for kind, total in totals.items()}


def share(counts: dict[str, tuple[int, int]]) -> float:
    """Returns the share of right answers over all kinds, from 0 to 1."""
    return sum(right for right, _ in counts.values()) / sum(total for _, total in counts.values())
