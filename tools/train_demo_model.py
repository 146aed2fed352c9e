"""Trains the demo model from nothing, measures it as shipped, and writes it into the package.

    python -m tools.train_demo_model             # about twenty minutes on two cores
    python -m tools.train_demo_model --evaluate  # only measures the shipped files

The corpus is written by `demo_corpus`; no data is downloaded. The seed is fixed; floating-point sums depend on the
processor and the number of threads, so another machine gives slightly other weights.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tools.demo_corpus.base import HELD_OUT
from tools.demo_corpus.conversations import Corpus, normalized
from tools.demo_corpus.dialogues import Message
from tools.demo_corpus.evaluation import (
    Question,
    fact_questions,
    held_out_questions,
    repeat_questions,
    system_questions,
)
from tools.demo_corpus.grading import accuracy, answers, share
from tools.demo_corpus.model_card import model_card

FOLDER = Path(__file__).parents[1] / "abstractllm" / "providers" / "huggingface" / "demo_model"
SEED = 7
VOCABULARY = 3072
CONTEXT = 2048
BATCH_TOKENS = 1024
"""Tokens of one thread's share of a step."""
THREADS = 2
"""Each computes the gradient of its share on its own. Threads that share every operation wait for one another thousands
of times a step, which makes training several times slower when the machine has other work."""
MATRIX_RATE = 2e-3
EMBEDDING_RATE = 3e-3
WARM_UP = 100
CHUNK = 2_000
"""Conversations encoded at a time."""
WIDTHS = (16, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512, 1024, CONTEXT)
"""Lengths to which conversations are padded; few, because a processor's kernels are prepared for each shape."""

START, SYSTEM, USER, ASSISTANT, END, PADDING = SPECIAL = (
    "<|start|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|padding|>",
)  # fmt: skip
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('The demo model knows the roles system, user and assistant, not ' + message.role + '.') -}}
{%- endif -%}
{{- '<|' + message.role + '|>' + message.content + eos_token -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def train_tokenizer(corpus: Corpus) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer, which can encode every text; digits are single tokens.

    Args:
        corpus: The source of its training text.

    Returns:
        The tokenizer, with special tokens and chat template.
    """
    random_ = random.Random(SEED)
    texts = [message["content"] for _ in range(40_000) for message in corpus.conversation(random_)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PADDING,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def encode(
    tokenizer: PreTrainedTokenizerFast, conversations: list[list[Message]]
) -> list[tuple[list[int], list[bool]]]:
    """Encodes conversations exactly as the chat template does.

    Args:
        tokenizer: The demo model's tokenizer.
        conversations: Messages of each conversation.

    Returns:
        For each conversation its tokens, cut at the context, and whether each is to be learnt: the assistant's
        words and the end of its turns.
    """
    contents = [message["content"] for conversation in conversations for message in conversation]
    encoded = iter(tokenizer(contents, add_special_tokens=False)["input_ids"])
    role_tokens = {role: tokenizer.convert_tokens_to_ids(f"<|{role}|>") for role in ("system", "user", "assistant")}
    result = []
    for conversation in conversations:
        tokens, learnt = [tokenizer.bos_token_id], [False]
        for message in conversation:
            content = next(encoded)
            tokens += [role_tokens[message["role"]], *content, tokenizer.eos_token_id]
            learnt += [False] + [message["role"] == "assistant"] * (len(content) + 1)
        result.append((tokens[:CONTEXT], learnt[:CONTEXT]))
    return result


def batches(tokenizer: PreTrainedTokenizerFast, corpus: Corpus) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Draws batches without end; the conversations of a batch have about the same length.

    Yields:
        Tokens and labels, both ``[conversations, tokens]`` of int64; labels are -100 where nothing is to be learnt.

    Raises:
        ValueError: A held-out phrasing got into the corpus.
    """
    random_ = random.Random(SEED + 1)
    waiting: dict[int, list[tuple[list[int], list[bool]]]] = {width: [] for width in WIDTHS}
    while True:
        conversations = [corpus.conversation(random_) for _ in range(CHUNK)]
        for message in (message for conversation in conversations for message in conversation):
            if message["role"] != "assistant" and normalized(message["content"]) in corpus.held_out:
                raise ValueError(f"held-out phrasing in the training corpus: {message['content']!r}")
        for sample in encode(tokenizer, conversations):
            width = next(width for width in WIDTHS if width >= len(sample[0]))
            group = waiting[width]
            group.append(sample)
            if len(group) * width >= BATCH_TOKENS - width:
                tokens = torch.full((len(group), width), tokenizer.pad_token_id)
                labels = torch.full((len(group), width), -100)
                for row, (words, learnt) in enumerate(group):
                    tokens[row, : len(words)] = torch.tensor(words)
                    labels[row, : len(words)] = torch.where(torch.tensor(learnt), torch.tensor(words), -100)
                yield tokens, labels
                group.clear()


def train(tokenizer: PreTrainedTokenizerFast, corpus: Corpus, steps: int) -> LlamaForCausalLM:
    """Trains the model.

    Args:
        tokenizer: The demo model's tokenizer.
        corpus: The source of conversations.
        steps: Optimizer steps, each of about `BATCH_TOKENS` tokens.

    Returns:
        The trained model, in 32-bit floats.
    """
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.set_attn_implementation("eager")  # quicker than the fused kernel for such short sequences
    parameters = dict(model.named_parameters())
    print(f"{sum(parameter.numel() for parameter in parameters.values()):,} parameters", flush=True)
    matrices = [
        parameter for name, parameter in parameters.items() if name.startswith("model.layers") and parameter.ndim == 2
    ]
    others = [
        parameter for name, parameter in parameters.items() if not any(parameter is matrix for matrix in matrices)
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=EMBEDDING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        )
        for optimizer in optimizers
    ]
    started, mean = time.monotonic(), 0.0
    for step, (tokens, labels) in zip(range(steps), batches(tokenizer, corpus), strict=False):
        wanted = labels[:, 1:] != -100
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.model(input_ids=tokens[:, :-1]).last_hidden_state
            logits = model.lm_head(hidden[wanted])
        loss = functional.cross_entropy(logits.float(), labels[:, 1:][wanted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        mean = loss.item() if step == 0 else 0.98 * mean + 0.02 * loss.item()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps}  loss {mean:.4f}  {time.monotonic() - started:.0f} s", flush=True)
    return model


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Writes weights as bfloat16 safetensors, configuration, tokenizer and chat template into the package."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    trained: Any = model  # the stub of `to` does not know this form
    trained.to(torch.bfloat16).save_pretrained(FOLDER)
    tokenizer.save_pretrained(FOLDER)


def measure(title: str, questions: list[Question]) -> dict[str, tuple[int, int]]:
    """Asks the shipped model, prints each kind's accuracy and some wrong answers, and returns the counts."""
    replies = answers(FOLDER, questions)
    counts = accuracy(questions, replies)
    total = sum(total for _, total in counts.values())
    print(f"\n{title}: {share(counts):.2%} of {total} questions of {len(counts)} kinds")
    for kind, (right, number) in counts.items():
        print(f"  {kind:28} {right:4} of {number}")
    wrong = [(q, answer) for q, answer in zip(questions, replies, strict=True) if answer != q.expected]
    for question, answer in wrong[:: max(1, len(wrong) // 25)]:
        print(f"  wrong: {question.messages[-1]['content']!r} -> {answer!r}, not {question.expected!r}")
    return counts


def main() -> None:
    """Trains unless told only to evaluate, then measures the files as shipped and writes the model card."""
    parser = argparse.ArgumentParser(description="Train and measure the demo model.")
    parser.add_argument("--steps", type=int, default=3600, help="optimizer steps")
    parser.add_argument("--evaluate", action="store_true", help="only measure the shipped files")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    corpus = Corpus()
    started = time.monotonic()
    if not arguments.evaluate:
        tokenizer = train_tokenizer(corpus)
        save(train(tokenizer, corpus, arguments.steps), tokenizer)
    minutes = (time.monotonic() - started) / 60
    facts = measure("facts", fact_questions(corpus, per_kind=100))
    held_out = measure(
        f"held-out phrasings ({sum(map(len, HELD_OUT.values()))})", held_out_questions(corpus, per_phrasing=20)
    )
    systems = measure("system prompts", system_questions(corpus, per_mode=60))
    repeats = measure("texts to repeat", repeat_questions(100))
    if not arguments.evaluate:
        card = model_card(arguments.steps, minutes, facts, held_out, systems, repeats)
        (FOLDER / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
