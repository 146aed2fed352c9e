"""The metrics that are read when they are scraped."""

from __future__ import annotations

from abstractllm_server.telemetry.instrument import Instrument, Kind

__all__ = ["OBSERVED"]

OBSERVED = (
    # The calls.
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
    # The replicas of LLMs that have some.
    Instrument(
        "abstractllm.replica.ready",
        Kind.OBSERVED_GAUGE,
        "1",
        "1 if the replica can answer.",
        ("abstractllm.llm", "abstractllm.replica"),
    ),
    Instrument(
        "abstractllm.replica.requests",
        Kind.OBSERVED_SUM,
        "{request}",
        "Requests that a replica answers now, or that wait in it, whichever server they came from.",
        ("abstractllm.llm", "abstractllm.replica", "abstractllm.state"),
    ),
    # Local models.
    Instrument(
        "abstractllm.engine.memory",
        Kind.OBSERVED_SUM,
        "By",
        "Bytes on its device that a loaded model takes.",
        ("abstractllm.llm", "abstractllm.replica", "abstractllm.kind"),
    ),
    Instrument(
        "abstractllm.engine.kv_cache.usage",
        Kind.OBSERVED_GAUGE,
        "1",
        "Part of the cache of keys and values that requests hold, from 0 to 1.",
        ("abstractllm.llm", "abstractllm.replica"),
    ),
    Instrument(
        "abstractllm.engine.evictions",
        Kind.OBSERVED_COUNTER,
        "{request}",
        "Requests that lost their place in the cache to others, and were continued later.",
        ("abstractllm.llm", "abstractllm.replica"),
    ),
    Instrument(
        "abstractllm.engine.batch.size",
        Kind.OBSERVED_GAUGE,
        "{request}",
        "Requests in the latest step.",
        ("abstractllm.llm", "abstractllm.replica"),
    ),
    Instrument(
        "abstractllm.engine.steps",
        Kind.OBSERVED_COUNTER,
        "{step}",
        "Steps of the batch loop.",
        ("abstractllm.llm", "abstractllm.replica"),
    ),
    Instrument(
        "abstractllm.engine.step.duration",
        Kind.OBSERVED_COUNTER,
        "s",
        "Time that the steps took together.",
        ("abstractllm.llm", "abstractllm.replica"),
    ),
    Instrument(
        "abstractllm.engine.prompt.tokens",
        Kind.OBSERVED_COUNTER,
        "{token}",
        "Tokens of the prompts that have begun.",
        ("abstractllm.llm", "abstractllm.replica"),
    ),
    Instrument(
        "abstractllm.engine.prompt.cached_tokens",
        Kind.OBSERVED_COUNTER,
        "{token}",
        "Of these, those whose keys and values an earlier request had left in the cache.",
        ("abstractllm.llm", "abstractllm.replica"),
    ),
    Instrument(
        "abstractllm.engine.generated.tokens",
        Kind.OBSERVED_COUNTER,
        "{token}",
        "Tokens that were generated.",
        ("abstractllm.llm", "abstractllm.replica"),
    ),
    Instrument(
        "abstractllm.engine.loads",
        Kind.OBSERVED_COUNTER,
        "{load}",
        "Attempts at loading a model that have ended.",
        ("abstractllm.llm", "abstractllm.replica", "abstractllm.outcome"),
    ),
    Instrument(
        "abstractllm.engine.load.duration",
        Kind.OBSERVED_COUNTER,
        "s",
        "Time that the loads that succeeded took together.",
        ("abstractllm.llm", "abstractllm.replica"),
    ),
    Instrument(
        "abstractllm.engine.restarts",
        Kind.OBSERVED_COUNTER,
        "{restart}",
        "Ends of an engine process that nobody asked for, after each of which it is started again.",
        ("abstractllm.llm", "abstractllm.replica", "abstractllm.reason"),
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
        "abstractllm.server.utilization",
        Kind.OBSERVED_GAUGE,
        "1",
        "Load of the server as clients and routers balance by it: the part of its places in use, weighted with its "
        "slowness; above 1 where requests wait.",
    ),
    Instrument(
        "abstractllm.server.requests",
        Kind.OBSERVED_SUM,
        "{request}",
        "Requests that all LLMs together answer now, or that wait for their turn.",
        ("abstractllm.state",),
    ),
    Instrument(
        "abstractllm.server.kv_cache.usage",
        Kind.OBSERVED_GAUGE,
        "1",
        "Part of a cache of keys and values that requests hold, from 0 to 1: of the fullest one.",
    ),
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
"""Of the calls, the LLMs, the engines of local models, the server and its process."""
