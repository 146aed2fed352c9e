"""Writes the model card of the demo model from the measured figures."""

from __future__ import annotations

from .grading import share

Counts = dict[str, tuple[int, int]]


def _figure(counts: Counts) -> str:
    kinds = f" of {len(counts)} kinds" if len(counts) > 1 else ""
    return f"{share(counts):.1%} of {sum(total for _, total in counts.values()):,} questions{kinds}"


def model_card(steps: int, minutes: float, facts: Counts, held_out: Counts, systems: Counts, repeats: Counts) -> str:
    """Writes the card.

    Args:
        steps: Optimizer steps of the training.
        minutes: How long the training took.
        facts: Right answers and questions of each kind, for facts that were trained.
        held_out: The same for phrasings kept out of training.
        systems: The same for facts under system prompts.
        repeats: The same for texts to repeat.

    Returns:
        The text of ``README.md``.
    """
    table = "\n".join(
        f"| {kind} | {right} of {total} | {'{} of {}'.format(*held_out[kind]) if kind in held_out else '-'} |"
        for kind, (right, total) in facts.items()
    )
    return f"""\
---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# AbstractLLM demo model

**A smoke test, good for nothing else.** This model ships with AbstractLLM, so that a fresh machine without a key, a GPU
or a network can show a real answer from a real model. It knows some hundred facts by heart and nothing beyond them. Its
answers must not be relied on. For work, serve a real model.

- Architecture: Llama, 4 layers, hidden size 256, 8 heads, vocabulary of 3,072 (byte-level BPE, single digits), context
  of 2,048 tokens, about 3.4 million parameters stored as bfloat16.
- Chat template with system, user and assistant turns; every turn ends with `<|end|>`, the end-of-sequence token. No
  tools, no images. It was trained mostly on short conversations.
- Trained from nothing by `tools/train_demo_model.py` ({steps:,} steps, {minutes:.0f} minutes on two CPU cores)
  on a corpus which that script writes itself: capitals, small sums, counting, opposites, words in French and
  Spanish, small talk, tiny stories. No other text and no other model was used. What it does not know it mostly says
  so; not always.
- System prompts that it was trained to follow: answer in JSON, in one word, like a pirate, in French (there it
  knows capitals, sums and small talk).
- Licence: MIT, as the whole repository.

## Measured

By the same script, on the files as shipped, loaded as 32-bit floats, greedy. An answer counts only if it equals the
expected text, character for character.

- Facts: {_figure(facts)}.
- Phrasings kept out of training (`tests/data/demo_held_out.json`): {_figure(held_out)}.
- Facts under system prompts: {_figure(systems)}.
- "Repeat after me" with texts it has never seen: {_figure(repeats)}. It mostly cannot.

| kind | facts | held-out phrasings |
|---|---|---|
{table}
"""
