"""The messages between a provider and its engine process; both sides import this file, so it stays light.

Times are seconds, token counts and ids are integers. A request's `id` is an integer that the provider chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from msgspec import Struct, msgpack

__all__ = [
    "CPU_BATCH_SIZE",
    "CPU_CACHE_BYTES",
    "GPU_BATCH_SIZE",
    "LOADING",
    "Batch",
    "Begun",
    "CallPiece",
    "Cancel",
    "Conversation",
    "Count",
    "Counted",
    "Counters",
    "Delta",
    "Done",
    "Failed",
    "Format",
    "FromEngine",
    "Generate",
    "Load",
    "LoadFailed",
    "Loaded",
    "Logprob",
    "Ping",
    "Pong",
    "Progress",
    "Sampling",
    "ToEngine",
    "ToolCall",
    "ToolDefinition",
    "TopToken",
    "Turn",
    "join_deltas",
    "pack_deltas",
    "unpack_deltas",
]


CPU_CACHE_BYTES = 512 * 2**20
"""Bytes that an engine takes for keys and values on a CPU where `Load.kv_cache_bytes` is unset, if there are enough."""
CPU_BATCH_SIZE = 64
"""The requests that a CPU answers at a time, unless the configuration says otherwise."""
GPU_BATCH_SIZE = 256
"""The most requests that an engine answers at a time on a GPU where `Load.max_batch_size` is unset; a CPU has fewer."""
LOADING = "the loading of the model"
"""The name of the work of a process whose model is not loaded yet; each report of progress begins another piece."""


class Load(Struct, tag=True, frozen=True, kw_only=True):
    """Load a model; the first message to an engine."""

    model: str
    """A directory or a hub id."""
    is_directory: bool
    cache_dir: str
    revision: str | None = None
    dtype: str = "auto"
    quantization: str = "none"
    double_quantization: bool = False
    context_window: int | None = None
    device_map: str | dict[str, Any] | None = None
    attn_implementation: str | None = None
    cuda_graphs: bool | None = None
    fused_kernels: bool = True
    overlap_steps: bool = True
    trust_remote_code: bool = False
    local_files_only: bool = False
    threads: int | None = None
    max_batch_size: int | None = None
    kv_cache_bytes: int | None = None
    gpu_memory_utilization: float | None = None
    prefix_sharing: bool = True


class ToolCall(Struct, frozen=True):
    """A call in an earlier message."""

    id: str
    name: str
    arguments: str
    """A JSON object."""


class Turn(Struct, frozen=True):
    """One message of a conversation."""

    role: str
    text: str
    """Of the role `tool`: the tool's result."""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    """Of the role `tool`: the call that this answers."""
    name: str = ""
    """Of the role `tool`: the tool, where the call is in the conversation."""
    message: int = -1
    """The index of the request's message that it comes from; -1 for the prompt and the system prompt."""


class ToolDefinition(Struct, frozen=True):
    """A tool that the model may call."""

    name: str
    description: str
    schema: str
    """A JSON schema for the arguments, an object."""


class Conversation(Struct, frozen=True):
    """The messages and tools that the model is given."""

    turns: tuple[Turn, ...]
    """At least one."""
    tools: tuple[ToolDefinition, ...] = ()
    forced: tuple[str, ...] = ()
    """The names of the tools of which one must be called; empty if the model decides."""
    effort: str = ""
    """A value of `ReasoningEffort`; empty for the model's default."""
    raw: bool = False
    """True to give the model the one turn's text as it is: without the chat template, with its special tokens."""


class Sampling(Struct, frozen=True, kw_only=True):
    """The parameters of `abstractllm.parameters.GenerationParameters` that the engine honours; `None` is unset."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] | None = None
    logit_bias: dict[int, float] | None = None
    top_logprobs: int | None = None


class Format(Struct, frozen=True):
    """The format that an answer must have."""

    kind: str
    """`json_object`, `json_schema`, `regex` or `grammar`."""
    text: str = ""
    """The schema, the expression or the grammar."""


class Ping(Struct, tag=True, frozen=True):
    """Give a sign of life; sent again and again."""


class Generate(Struct, tag=True, frozen=True):
    """Answer a conversation."""

    id: int
    conversation: Conversation
    sampling: Sampling
    whole: bool = False
    """True to send the answer's text in one message, at its end."""
    format: Format | None = None
    caller: str = ""
    """The caller's name; callers whose formats must be compiled take turns."""


class Count(Struct, tag=True, frozen=True):
    """Count a conversation's tokens."""

    id: int
    conversation: Conversation


class Cancel(Struct, tag=True, frozen=True):
    """Stop answering; `Done` or `Failed` still follows. It may overtake the request that it cancels."""

    id: int
    order: int
    """The position of the request among those that were sent, from 1."""


class Progress(Struct, tag=True, frozen=True):
    """The progress of loading."""

    phase: str
    fraction: float | None = None
    """Of this phase, from 0 to 1."""


class Loaded(Struct, tag=True, frozen=True, kw_only=True):
    """The engine is ready."""

    device: str
    memory_bytes: int
    """Bytes of the weights."""
    cache_bytes: int = 0
    """Bytes of the cache of keys and values; 0 where each request has a cache that comes and goes with it."""
    dtype: str
    quantization: str
    context_window: int
    """Tokens of prompt and answer together."""
    max_characters: int | None
    """The characters of the longest message that may fit the window; `None` if the tokenizer sets no such bound."""
    system_prompt: bool
    """True if the chat template takes a system message, and shows it to the model."""
    chat: bool = True
    """True if the chat template shows earlier questions and answers to the model."""
    formats: bool = False
    """True if answers can be held to a format."""
    tools: bool = False
    """True if tools can be offered, and calls of them are understood."""
    effort: bool = False
    """True if the chat template takes a level of reasoning."""
    slots: int = 1
    """Requests that are answered at a time."""
    longest: int = 0
    """Tokens of prompt and answer that one request may have: the window, or less where the cache holds less."""
    note: str = ""
    """A change of the weights' precision; what a batch on a GPU runs with, or the reason why requests are answered one
    at a time."""


class Failed(Struct, tag=True, frozen=True):
    """The request failed; the fields are those of `AbstractLLMError`."""

    id: int
    reason: str
    message: str
    field: str | None = None
    limit: int | str | None = None
    requested: int | str | None = None
    output_tokens: int | None = None


class LoadFailed(Struct, tag=True, frozen=True):
    """The model cannot be loaded; the engine ends."""

    reason: str
    message: str
    field: str | None = None


class Begun(Struct, tag=True, frozen=True):
    """The request's turn has come."""

    id: int
    input_tokens: int = 0
    """Tokens of the prompt."""
    cached_tokens: int | None = None
    """Of these, those that an earlier request had left in the cache; None where there is no such cache."""


class TopToken(Struct, frozen=True):
    """One of the likeliest tokens at a position."""

    token_id: int
    token_bytes: bytes
    logprob: float


class Logprob(Struct, frozen=True):
    """The token that was chosen at a position, and the likeliest ones."""

    token_id: int
    token_bytes: bytes
    logprob: float
    top: tuple[TopToken, ...]


class CallPiece(Struct, frozen=True):
    """A piece of a tool call; the first of each index has id and name."""

    index: int
    id: str
    name: str
    arguments: str


class Delta(Struct, tag=True, frozen=True):
    """A piece of the answer: text, reasoning or a call; nothing but the count, of an answer that is wanted whole."""

    id: int
    text: str = ""
    logprobs: tuple[Logprob, ...] = ()
    output_tokens: int = 0
    """Tokens generated so far."""
    reasoning: str = ""
    call: CallPiece | None = None


def join_deltas(deltas: Iterable[Delta]) -> list[Delta]:
    """Returns the same pieces of one answer, with consecutive ones of one kind joined."""
    joined: list[Delta] = []
    for (call_index, _), group in groupby(deltas, _kind):
        pieces = list(group)
        last = pieces[-1]
        if len(pieces) > 1:
            call = last.call
            if call is not None:
                first = pieces[0].call or call
                arguments = "".join(delta.call.arguments for delta in pieces if delta.call is not None)
                call = CallPiece(call_index, first.id, first.name, arguments)
            last = Delta(
                last.id,
                "".join(delta.text for delta in pieces),
                tuple(logprob for delta in pieces for logprob in delta.logprobs),
                last.output_tokens,
                "".join(delta.reasoning for delta in pieces),
                call,
            )
        joined.append(last)
    return joined


def pack_deltas(deltas: Sequence[Delta]) -> bytes:
    """Encodes pieces of one answer; `unpack_deltas` gives them back."""
    return _packer.encode(deltas)


def unpack_deltas(frame: bytes) -> list[Delta]:
    """Decodes what `pack_deltas` encoded."""
    return _unpacker.decode(frame)


def _kind(delta: Delta) -> tuple[int, bool]:
    """Returns the index of the call that a piece belongs to (-1 outside of calls), and True for reasoning."""
    return (-1 if delta.call is None else delta.call.index), bool(delta.reasoning)


_packer = msgpack.Encoder()
_unpacker = msgpack.Decoder(list[Delta])


class Done(Struct, tag=True, frozen=True):
    """The answer is complete."""

    id: int
    finish_reason: str
    """A value of `FinishReason`, or `cancelled`."""
    stop_sequence: str
    input_tokens: int
    output_tokens: int
    since_first_token: float | None = None
    """Seconds; None without any token."""
    until_first_token: float | None = None
    """Seconds from the request's turn; None without any token."""
    reasoning_tokens: int | None = None
    """Of the output tokens; None of models whose reasoning is not marked."""
    cached_tokens: int | None = None
    """Of the prompt, those that an earlier request had left in the cache; None where there is no such cache."""


class Counters(Struct, frozen=True, kw_only=True):
    """The counters of an engine since its process started; a model that is not batched has zeros.

    The first four are counted by the provider, over all of the engine's processes.
    """

    queued: int = 0
    """Requests whose turn has not come."""
    running: int = 0
    """Requests that are being answered."""
    accepted: int = 0
    """Requests that were taken in."""
    released: int = 0
    """Of these, the ones that are over, however they ended."""
    active: int = 0
    """Requests that hold blocks of the cache."""
    waiting: int = 0
    """Requests that wait inside the batch loop, evicted ones included."""
    batch_size: int = 0
    """Requests in the last step."""
    blocks: int = 0
    """Blocks of keys and values that the cache has."""
    blocks_in_use: int = 0
    """Blocks that requests hold; one that several share counts for each."""
    steps: int = 0
    step_seconds: float = 0.0
    """Seconds that the steps took together."""
    prompt_tokens: int = 0
    """Tokens of the prompts that have begun."""
    cached_tokens: int = 0
    """Of these, the ones whose keys and values an earlier request had left in the cache."""
    generated_tokens: int = 0
    evictions: int = 0
    """Requests that lost their blocks to others, and are continued later."""


class Batch(Struct, tag=True, frozen=True):
    """The messages of one step of the batch loop to all its requests."""

    messages: tuple[Begun | Delta | Done | Failed, ...]
    counters: Counters
    """After the step."""


class Pong(Struct, tag=True, frozen=True):
    """The answer to a ping, from a thread that does nothing else."""

    work: dict[str, int]
    """The pieces of work that the process's threads are at: names in words, each with a number that is another one for
    each piece. The provider, which may have been stopped together with the process, measures how long one lasts."""


class Counted(Struct, tag=True, frozen=True):
    """The tokens of the conversation."""

    id: int
    tokens: int


ToEngine = Load | Generate | Count | Cancel | Ping
FromEngine = Progress | Loaded | LoadFailed | Batch | Begun | Delta | Done | Counted | Failed | Pong
