"""The numbers of an LLM's engines."""

from __future__ import annotations

from msgspec.structs import asdict

from abstractllm.providers.huggingface.engine.pool import EnginePool
from abstractllm.providers.huggingface.protocol.messages import Counters
from abstractllm.statistics import EngineStatistics

__all__ = ["statistics_of", "sum_of_counters"]


def sum_of_counters(pool: EnginePool) -> Counters:
    """Returns the sums of the counters of all engines."""
    all_counters = [asdict(engine.counters) for engine in pool.engines]
    return Counters(**{name: sum(each[name] for each in all_counters) for name in Counters.__struct_fields__})


def statistics_of(pool: EnginePool) -> EngineStatistics:
    """Returns the work of all engines that there have been, and the memory of those that are loaded."""
    engines, history, counters = pool.engines, pool.history, sum_of_counters(pool)
    models = [model for engine in engines if (model := engine.loaded) is not None]
    work = history.work
    return EngineStatistics(
        weights_bytes=sum(model.memory_bytes for model in models),
        kv_cache_bytes=sum(model.cache_bytes for model in models),
        kv_cache_usage=min(1.0, counters.blocks_in_use / counters.blocks) if counters.blocks else 0.0,
        batch_size=counters.batch_size if counters.active else 0,
        steps=int(work["steps"]),
        step_seconds=work["step_seconds"],
        prompt_tokens=int(work["prompt_tokens"]),
        cached_prompt_tokens=int(work["cached_tokens"]),
        generated_tokens=int(work["generated_tokens"]),
        evictions=int(work["evictions"]),
        loads=history.loads,
        failed_loads=history.failed_loads,
        load_seconds=history.load_seconds,
        restarts={"crashed": 0, "frozen": 0} | history.restarts,
    )
