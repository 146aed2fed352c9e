"""The table of all metrics: names, kinds, units, meanings, attributes, buckets.

Where OpenTelemetry's semantic conventions have a name for something it is taken from there, with its unit and its
attributes (GenAI, RPC, process); our own names begin with `abstractllm.`. `docs/metrics.md` is held against this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

__all__ = ["ATTRIBUTES", "INSTRUMENTS", "Instrument", "Kind"]


class Kind(StrEnum):
    """The kinds of metrics."""

    HISTOGRAM = "histogram"
    """Recorded at the end of each call."""
    COUNTER = "counter"
    """Recorded at the end of each call; it only grows."""
    OBSERVED_COUNTER = "observed counter"
    """Read when it is scraped; it only grows."""
    OBSERVED_SUM = "observed sum"
    """Read when it is scraped; it grows and falls, and those of several processes add up."""
    OBSERVED_GAUGE = "observed gauge"
    """Read when it is scraped; those of several processes do not add up."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric.

    Args:
        name: The name, in OpenTelemetry's form.
        kind: The kind, which decides how it is counted.
        unit: The unit, in UCUM.
        description: The meaning.
        attributes: The names of its attributes, all of which `ATTRIBUTES` describes.
        buckets: The upper bounds of a histogram's buckets.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = field(default=(), repr=False)


ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        "gen_ai.operation.name": "`chat` for an answer",
        "gen_ai.provider.name": "the provider that answered: `openai`, `anthropic`, `ollama`, `huggingface`, ...",
        "gen_ai.request.model": "the model, as the LLM's configuration names it",
        "gen_ai.token.type": "`input` or `output`",
        "error.type": "the reason of the error, as in [errors](errors.md), or the gRPC status where there is none; "
        "absent where all went well",
        "rpc.system.name": "`grpc`",
        "rpc.method": "the method, `package.Service/Method`; `_OTHER` for one that there is none of",
        "rpc.response.status_code": "the name of the gRPC status",
        "server.address": "the host of the hosted LLM's `base_url`, where it is set",
        "server.port": "its port",
        "cpu.mode": "`user` or `system`",
        "abstractllm.llm": "the name of the LLM that was meant",
        "abstractllm.caller": "the caller's name; only with `metrics.callers`",
        "abstractllm.state": "`running` or `waiting`",
        "abstractllm.kind": "`weights` or `kv_cache`",
        "abstractllm.outcome": "`success` or `failure`",
        "abstractllm.reason": "the reason in one word",
        "abstractllm.direction": "`request` or `response`",
        "abstractllm.file": "`tokens`, `certificate` or `client_ca`",
        "abstractllm.certificate": "`server` or `client_ca`",
        "abstractllm.task": "the name of the task",
    }
)
"""The meaning of each attribute."""

_OPERATION_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(4.0**power for power in range(14))

_GEN_AI = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")
_SERVED = (*_GEN_AI, "abstractllm.llm", "abstractllm.caller")
_UPSTREAM = (*_GEN_AI, "server.address", "server.port", "abstractllm.llm")

_ALL = (
    # Each answer, as a caller sees it.
    Instrument(
        "gen_ai.server.request.duration",
        Kind.HISTOGRAM,
        "s",
        "Generative AI server request duration such as time-to-last byte or last output token.",
        (*_SERVED, "error.type"),
        _OPERATION_SECONDS,
    ),
    Instrument(
        "gen_ai.server.time_to_first_token",
        Kind.HISTOGRAM,
        "s",
        "Time to generate first token for successful responses.",
        _SERVED,
        _FIRST_TOKEN_SECONDS,
    ),
    Instrument(
        "gen_ai.server.time_per_output_token",
        Kind.HISTOGRAM,
        "s",
        "Time per output token generated after the first token for successful responses.",
        _SERVED,
        _TOKEN_SECONDS,
    ),
    Instrument(
        "abstractllm.server.queue.duration",
        Kind.HISTOGRAM,
        "s",
        "Time that a request waited for its turn.",
        _SERVED,
        _OPERATION_SECONDS,
    ),
    Instrument(
        "abstractllm.server.prefill.duration",
        Kind.HISTOGRAM,
        "s",
        "Time from a request's turn to its first token, of local models.",
        _SERVED,
        _OPERATION_SECONDS,
    ),
    Instrument(
        "abstractllm.server.decode.duration",
        Kind.HISTOGRAM,
        "s",
        "Time from a request's first token to its last, of local models.",
        _SERVED,
        _OPERATION_SECONDS,
    ),
    Instrument(
        "abstractllm.server.tokens",
        Kind.COUNTER,
        "{token}",
        "Tokens of prompts and answers, those of answers that ended early included.",
        (*_SERVED, "gen_ai.token.type"),
    ),
    Instrument(
        "abstractllm.server.tokens.cached",
        Kind.COUNTER,
        "{token}",
        "Of the prompts' tokens, those that had not to be computed again.",
        _SERVED,
    ),
    Instrument(
        "abstractllm.server.tokens.reasoning",
        Kind.COUNTER,
        "{token}",
        "Of the answers' tokens, those of the reasoning before them.",
        _SERVED,
    ),
    # Each call to a hosted LLM.
    Instrument(
        "gen_ai.client.operation.duration",
        Kind.HISTOGRAM,
        "s",
        "GenAI operation duration.",
        (*_UPSTREAM, "error.type"),
        _OPERATION_SECONDS,
    ),
    Instrument(
        "gen_ai.client.operation.time_to_first_chunk",
        Kind.HISTOGRAM,
        "s",
        "Time to receive the first chunk, measured from when the client issues the generation request to when the "
        "first chunk is received in the response stream.",
        _UPSTREAM,
        _OPERATION_SECONDS,
    ),
    Instrument(
        "gen_ai.client.token.usage",
        Kind.HISTOGRAM,
        "{token}",
        "Number of input and output tokens used.",
        (*_UPSTREAM, "gen_ai.token.type"),
        _TOKENS,
    ),
    # Each call of any method.
    Instrument(
        "rpc.server.call.duration",
        Kind.HISTOGRAM,
        "s",
        "Measures the duration of an incoming Remote Procedure Call (RPC).",
        ("rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"),
        _CALL_SECONDS,
    ),
    Instrument(
        "abstractllm.server.refusals",
        Kind.COUNTER,
        "{call}",
        "Calls that were refused before anything was done for them.",
        ("error.type",),
    ),
    Instrument(
        "abstractllm.server.calls.active",
        Kind.OBSERVED_SUM,
        "{call}",
        "Calls that have begun and have not ended.",
        ("rpc.method",),
    ),
    # The LLMs.
    Instrument(
        "abstractllm.llm.ready",
        Kind.OBSERVED_GAUGE,
        "1",
        "1 if the LLM can answer: a local one is loaded, or has not been wanted yet.",
        ("abstractllm.llm", "gen_ai.provider.name"),
    ),
    Instrument(
        "abstractllm.llm.requests",
        Kind.OBSERVED_SUM,
        "{request}",
        "Requests of an LLM that are answered now, or wait for their turn.",
        ("abstractllm.llm", "abstractllm.state"),
    ),
    Instrument(
        "abstractllm.llm.waiting.size",
        Kind.OBSERVED_SUM,
        "By",
        "Bytes that the requests that wait for their turn hold.",
        ("abstractllm.llm",),
    ),
    # Local models.
    Instrument(
        "abstractllm.engine.memory",
        Kind.OBSERVED_SUM,
        "By",
        "Bytes on its device that a loaded model takes.",
        ("abstractllm.llm", "abstractllm.kind"),
    ),
    Instrument(
        "abstractllm.engine.kv_cache.usage",
        Kind.OBSERVED_GAUGE,
        "1",
        "Part of the cache of keys and values that requests hold, from 0 to 1.",
        ("abstractllm.llm",),
    ),
    Instrument(
        "abstractllm.engine.evictions",
        Kind.OBSERVED_COUNTER,
        "{request}",
        "Requests that lost their place in the cache to others, and were continued later.",
        ("abstractllm.llm",),
    ),
    Instrument(
        "abstractllm.engine.batch.size",
        Kind.OBSERVED_GAUGE,
        "{request}",
        "Requests in the latest step.",
        ("abstractllm.llm",),
    ),
    Instrument(
        "abstractllm.engine.steps",
        Kind.OBSERVED_COUNTER,
        "{step}",
        "Steps of the batch loop.",
        ("abstractllm.llm",),
    ),
    Instrument(
        "abstractllm.engine.step.duration",
        Kind.OBSERVED_COUNTER,
        "s",
        "Time that the steps took together.",
        ("abstractllm.llm",),
    ),
    Instrument(
        "abstractllm.engine.prompt.tokens",
        Kind.OBSERVED_COUNTER,
        "{token}",
        "Tokens of the prompts that have begun.",
        ("abstractllm.llm",),
    ),
    Instrument(
        "abstractllm.engine.prompt.cached_tokens",
        Kind.OBSERVED_COUNTER,
        "{token}",
        "Of these, those whose keys and values an earlier request had left in the cache.",
        ("abstractllm.llm",),
    ),
    Instrument(
        "abstractllm.engine.generated.tokens",
        Kind.OBSERVED_COUNTER,
        "{token}",
        "Tokens that were generated.",
        ("abstractllm.llm",),
    ),
    Instrument(
        "abstractllm.engine.loads",
        Kind.OBSERVED_COUNTER,
        "{load}",
        "Attempts at loading a model that have ended.",
        ("abstractllm.llm", "abstractllm.outcome"),
    ),
    Instrument(
        "abstractllm.engine.load.duration",
        Kind.OBSERVED_COUNTER,
        "s",
        "Time that the loads that succeeded took together.",
        ("abstractllm.llm",),
    ),
    Instrument(
        "abstractllm.engine.restarts",
        Kind.OBSERVED_COUNTER,
        "{restart}",
        "Ends of an engine process that nobody asked for, after each of which it is started again.",
        ("abstractllm.llm", "abstractllm.reason"),
    ),
    Instrument(
        "abstractllm.engine.silence",
        Kind.OBSERVED_GAUGE,
        "s",
        "Time since an engine process last gave a sign of life.",
        ("abstractllm.llm",),
    ),
    Instrument(
        "abstractllm.model_cache.size",
        Kind.OBSERVED_SUM,
        "By",
        "Bytes on the disk of the models in the cache; looked up at most once a minute.",
    ),
    # The server.
    Instrument(
        "abstractllm.server.connections",
        Kind.OBSERVED_SUM,
        "{connection}",
        "Connections of callers.",
    ),
    Instrument(
        "abstractllm.server.connections.closed",
        Kind.OBSERVED_COUNTER,
        "{connection}",
        "Connections that the server has closed of its own accord.",
        ("abstractllm.reason",),
    ),
    Instrument(
        "abstractllm.server.calls.pending",
        Kind.OBSERVED_SUM,
        "{call}",
        "Calls whose headers have come, and whose message has not.",
    ),
    Instrument(
        "abstractllm.server.held",
        Kind.OBSERVED_SUM,
        "By",
        "Bytes of requests that are being answered, and of answers that their callers have not read.",
        ("abstractllm.direction",),
    ),
    Instrument(
        "abstractllm.server.loop.lag",
        Kind.OBSERVED_GAUGE,
        "s",
        "Time by which the event loop is late.",
    ),
    Instrument(
        "abstractllm.server.config.reloads",
        Kind.OBSERVED_COUNTER,
        "{reload}",
        "Attempts at taking over a changed configuration.",
        ("abstractllm.outcome",),
    ),
    Instrument(
        "abstractllm.server.files.reloads",
        Kind.OBSERVED_COUNTER,
        "{reload}",
        "Attempts at taking over a changed file of tokens or certificates.",
        ("abstractllm.file", "abstractllm.outcome"),
    ),
    Instrument(
        "abstractllm.server.certificate.expiry",
        Kind.OBSERVED_GAUGE,
        "s",
        "The time at which a certificate expires, in seconds since 1970.",
        ("abstractllm.certificate",),
    ),
    Instrument(
        "abstractllm.server.tasks.restarts",
        Kind.OBSERVED_COUNTER,
        "{restart}",
        "Ends of a background task by a fault, after each of which it is started again.",
        ("abstractllm.task",),
    ),
    Instrument(
        "abstractllm.server.log.dropped",
        Kind.OBSERVED_COUNTER,
        "{line}",
        "Log lines that were dropped, since they were not taken off in time.",
    ),
    Instrument(
        "process.cpu.time",
        Kind.OBSERVED_COUNTER,
        "s",
        "Total CPU seconds broken down by different CPU modes.",
        ("cpu.mode",),
    ),
    Instrument(
        "process.memory.usage",
        Kind.OBSERVED_SUM,
        "By",
        "The amount of physical memory in use.",
    ),
    Instrument(
        "process.unix.file_descriptor.count",
        Kind.OBSERVED_SUM,
        "{file_descriptor}",
        "Number of UNIX file descriptors in use by the process.",
    ),
    Instrument(
        "abstractllm.process.file_descriptor.limit",
        Kind.OBSERVED_GAUGE,
        "{file_descriptor}",
        "Number of file descriptors that the process may have.",
    ),
    Instrument(
        "process.thread.count",
        Kind.OBSERVED_SUM,
        "{thread}",
        "Process threads count.",
    ),
    Instrument(
        "process.uptime",
        Kind.OBSERVED_GAUGE,
        "s",
        "The time the process has been running.",
    ),
)

INSTRUMENTS: Mapping[str, Instrument] = MappingProxyType({instrument.name: instrument for instrument in _ALL})
"""All metrics, by name."""
