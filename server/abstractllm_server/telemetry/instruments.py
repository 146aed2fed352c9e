"""The table of all metrics: names, kinds, units, meanings, attributes, buckets.

Where OpenTelemetry's semantic conventions have a name for something it is taken from there, with its unit and its
attributes (GenAI, RPC, process); our own names begin with `abstractllm.`. `docs/metrics.md` is held against this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from abstractllm_server.telemetry.instrument import Instrument, Kind
from abstractllm_server.telemetry.observed_instruments import OBSERVED
from abstractllm_server.telemetry.recorded_instruments import RECORDED

__all__ = ["ATTRIBUTES", "INSTRUMENTS", "Instrument", "Kind"]

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
        "abstractllm.replica": "the name of the replica; only of LLMs that have [replicas](providers/ray.md)",
        "abstractllm.caller": "the caller's name; only with `metrics.callers`",
        "abstractllm.state": "`running` or `waiting`",
        "abstractllm.kind": "`weights` or `kv_cache`",
        "abstractllm.outcome": "`success` or `failure`",
        "abstractllm.reason": "the reason in one word",
        "abstractllm.direction": "`request` or `response`",
        "abstractllm.file": "`tokens`, or `certificate` for the certificate, its key and `client_ca`",
        "abstractllm.certificate": "`server` or `client_ca`",
        "abstractllm.task": "the name of the task",
    }
)
"""The meaning of each attribute."""

INSTRUMENTS: Mapping[str, Instrument] = MappingProxyType(
    {instrument.name: instrument for instrument in (*RECORDED, *OBSERVED)}
)
"""All metrics, by name."""
