"""The metrics that are recorded at the end of each call."""

from __future__ import annotations

from abstractllm_server.telemetry.instrument import Instrument, Kind

__all__ = ["RECORDED"]

_OPERATION_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(4.0**power for power in range(14))

_GEN_AI = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")
_SERVED = (*_GEN_AI, "abstractllm.llm", "abstractllm.caller")
_UPSTREAM = (*_GEN_AI, "server.address", "server.port", "abstractllm.llm")

RECORDED = (
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
        "Time that a request waited for its turn, or for its model to be loaded.",
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
)
"""Of each answer, of each call to a hosted LLM, and of each call of any method."""
