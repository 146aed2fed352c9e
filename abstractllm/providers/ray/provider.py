"""The provider `ray`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from abstractllm._core import sync_bridge
from abstractllm._core.admission.limits import AdmissionLimits
from abstractllm._core.admission.waiting_room import WaitingRoom
from abstractllm._core.tracing import inject
from abstractllm.config import ConfigValues, LLMConfig
from abstractllm.enums import LlmState
from abstractllm.errors import AbstractLLMError, ConfigurationError, StaleConfigError
from abstractllm.providers.ray.cluster import resolved_address
from abstractllm.providers.ray.config import (
    DEFAULT_SERVES,
    ReplicaKeys,
    config_type_of,
    keys_of,
    most_running,
    served_class,
    served_values,
    with_served_defaults,
)
from abstractllm.providers.ray.managed_models import ManagedModels
from abstractllm.providers.ray.plain import decode, encode, error_of, note_record
from abstractllm.requests import GenerationRequest
from abstractllm.statistics import EngineStatistics, ReplicaStatistics
from abstractllm.types import Capabilities, Event, Finished, Started, Timing

__all__ = ["RayProvider"]

_MOST_WAITING_BYTES = 128 << 20
"""Bytes of the requests that may wait for the deployment to be there."""


class RayProvider(ManagedModels):
    """An LLM in replicas that Ray Serve runs: each is the LLM that the configuration describes, in its own process.

    The first request, or `load`, connects to Ray, and deploys the replicas if there are none. What callers send and
    get, and every error, is what the LLM itself would take and give.

    Args:
        config: The keys of `ReplicaKeys`, and those of the LLM that each replica is.

    Raises:
        ConfigurationError: If a key is unknown or its value malformed, or there is no provider `serves`.
    """

    provider = "ray"

    def __init__(self, config: Mapping[Any, Any] | None = None) -> None:
        values = {str(key): value for key, value in (config or {}).items()}
        serves = values.get("serves", DEFAULT_SERVES)
        self.config_type = config_type_of(serves) if isinstance(serves, str) else LLMConfig
        super().__init__(values)
        self._waiting = WaitingRoom(AdmissionLimits(keys_of(self.config).max_waiting, _MOST_WAITING_BYTES))
        """The requests that wait for the deployment to be there."""

    def with_defaults(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """Returns `values` with what the replicas' provider takes from this process's environment."""
        return with_served_defaults({str(key): value for key, value in values.items()})

    # Requests.

    async def check(self, request: GenerationRequest, config: LLMConfig) -> tuple[GenerationRequest, tuple[str, ...]]:
        """Leaves the check to the replica that answers; waits until the deployment is there."""
        if not self._replicas.are_available:
            await self._waiting.during(request, self._replicas.available())
        return request, ()

    async def events(self, request: GenerationRequest, config: LLMConfig) -> AsyncGenerator[Event, None]:
        """Answers a request by a replica; see `AbstractLLMInterface.events`.

        Raises:
            EngineCrashedError: If the replica ended meanwhile; another takes its place.
            OverloadedError: If every replica has as many requests as it takes, and as many wait as may.
            ProviderUnavailableError: If Ray, or the deployment, is not there.
            AbstractLLMError: Whatever the LLM of the replica raises.
        """
        await self._replicas.available()
        sent_at, call = time.monotonic(), self._call(request)
        # A whole answer is one message from the replica, a stream one for each step or two.
        ask = self._replicas.whole if request.whole else self._replicas.stream
        async with aclosing(ask("answer" if request.whole else "stream", call)) as batches:
            async for batch in batches:
                request.record.replica = batch["replica"]
                if (tokens := batch.get("output_tokens")) is not None:
                    request.record.output_tokens = tokens
                end = batch["end"]
                if end is not None:
                    note_record(request.record, end["record"], sent_at)
                for event in batch["events"]:
                    yield self._own(decode(event))
                if end is not None and end["error"] is not None:
                    raise self._own_error(error_of(end["error"]))

    async def count(self, request: GenerationRequest, config: LLMConfig) -> int:
        """Counts the tokens of a request's prompt by a replica."""
        try:
            return int(await self._replicas.ask("count", self._call(request)))
        except AbstractLLMError as error:
            raise self._own_error(error) from error.__cause__

    def _call(self, request: GenerationRequest) -> dict[str, Any]:
        """Returns a request as a replica is sent it."""
        trace: dict[str, str] = {}
        inject(trace)
        left = None if request.deadline is None else max(0.001, request.deadline - time.monotonic())
        return {
            "request": encode(request),
            "llm": self.name,
            "timeout": left,
            "trace": trace,
            **self._settings.call,
        }

    def _own(self, event: Event) -> Event:
        """Returns an event of a replica as this LLM's."""
        match event:
            case Started():
                return dataclasses.replace(event, llm=self.name)
            case Finished():
                attempts = tuple(dataclasses.replace(attempt, llm=self.name) for attempt in event.attempts)
                # The first token's time is that at which it was here.
                return dataclasses.replace(event, attempts=attempts, timing=Timing(queued=event.timing.queued))
        return event

    def _own_error(self, error: AbstractLLMError) -> AbstractLLMError:
        """Returns an error of a replica as this LLM's; its partial text is what has arrived here."""
        error.llm, error.partial_text = self.name, ""
        return error

    # Capabilities and configuration.

    async def capabilities(self, config: LLMConfig, model: str) -> Capabilities:
        """Returns what a replica says that the model can do."""
        capabilities = await self._replicas.ask("capabilities", model or None)
        assert isinstance(capabilities, Capabilities)
        return capabilities

    async def preview(self, changes: Mapping[Any, Any]) -> LLMConfig:
        """Returns the configuration that `set_config` would give, as a replica checks it."""
        _refuse_replica_keys(changes)
        if self._link.is_idle:
            return self.config.changed(changes)
        return self._with_served(await self._replicas.ask("preview", encode(dict(changes))))

    def set_config(self, config: Mapping[Any, Any] | None = None, **changes: Any) -> ConfigValues:
        """Merges changes into the configuration; see `set_config_async`."""
        return sync_bridge.call(lambda: self.set_config_async(config, **changes))

    async def set_config_async(self, config: Mapping[Any, Any] | None = None, **changes: Any) -> ConfigValues:
        """Merges changes into the configuration of all replicas, those that start later included.

        They hold for every server that asks these replicas, and until the replicas have all ended or a server reads its
        configuration file again. If one replica cannot make the change, or the caller leaves, none keeps it.

        Raises:
            ConfigurationError: If a key is unknown or its value malformed, or it is one of the replicas' own.
            AbstractLLMError: The reason why a replica cannot make the change.
        """
        changes = {**{str(key): value for key, value in (config or {}).items()}, **changes}
        _refuse_replica_keys(changes)
        if self._link.is_idle:
            self.adopt(self.config.changed(changes))
            return self.get_config()
        version, before = self._settings.next_version(), self._settings.values
        try:
            results = await self._replicas.ask_all("change", list(version), encode(changes))
            if results and all(isinstance(result, StaleConfigError) for result in results):
                await asyncio.to_thread(self._link.look)  # so that the next try begins with what the other one has made
                raise self._own_error(results[0])
            if errors := [result for result in results if isinstance(result, AbstractLLMError)]:
                self._take_back(version, before)
                raise self._own_error(errors[0])
        except asyncio.CancelledError:
            self._take_back(version, before)
            raise
        values = results[0] if results else served_values(self.config.changed(changes))
        self._settings.adopt(version, values)
        self._adopt_values(values)
        return self.get_config()

    def _take_back(self, version: tuple[int, int], before: Mapping[str, Any]) -> None:
        """Has replicas that have made a change, or are about to, return to what was before."""
        after = (version[0], version[1] + 1)
        self._settings.adopt(after, before)
        with contextlib.suppress(Exception):
            self._link.look_soon()

    @contextlib.asynccontextmanager
    async def prepared_for(self, config: LLMConfig, *, replace: bool) -> AsyncIterator[None]:
        """Has the replicas load a model, where it changes, before it is in force; see `AbstractLLMInterface`."""
        before, values = self._settings.values, served_values(config)
        self._check_address(config)
        keeps_replicas = self._definition_of(config).digest == self._definition_of(self.config).digest
        if self._link.is_idle or not keeps_replicas or values == before or not keys_of(config).deploy:
            yield
            return
        version = self._settings.next_version()
        try:
            results = await self._replicas.ask_all("configure", list(version), values, values)
            if errors := [result for result in results if isinstance(result, AbstractLLMError)]:
                raise errors[0]
            self._settings.adopt(version, values)
            yield
        except BaseException:
            self._take_back(version, before)
            raise

    def _check_address(self, config: LLMConfig) -> None:
        """Refuses another cluster than the one that the replicas are on; one that was never reached can be changed."""
        before, after = (resolved_address(keys_of(one).ray_address) for one in (self.config, config))
        if before != after and self._link.is_connected:
            raise ConfigurationError(
                f"llms.{self.name}: ray_address: this process is connected to {before}; restart it to use {after}",
                field="ray_address",
                limit=before,
                requested=after,
            )

    def adopt(self, config: LLMConfig) -> None:
        """Puts another configuration in force: in the replicas that there are or, if need be, in others."""
        self.config_type = config_type_of(keys_of(config).serves)
        super().adopt(config)

    def reconfigured(self, before: LLMConfig, after: LLMConfig) -> None:
        """Brings the file's keys to the replicas, and deploys them anew where the file describes others."""
        keys = keys_of(after)
        self._waiting.configure(AdmissionLimits(keys.max_waiting, _MOST_WAITING_BYTES))
        self._settings.put_file(served_values(after))
        old, new = self._definition_of(before), self._definition_of(after)
        if (old.digest, old.application) != (new.digest, new.application):
            self._link.renew()
        elif keys.deploy:
            self._settings.reset_to_file()
            self._link.look_soon()
        self._changed()

    def _adopt_values(self, values: Mapping[str, Any]) -> None:
        """Takes over what the replicas' LLM is configured with."""
        config = self._with_served(values)
        with self._lock:
            self._config = config
        self._changed()

    def _with_served(self, values: Mapping[str, Any]) -> LLMConfig:
        """Returns the configuration with other keys of the replicas' LLM."""
        of_replicas = {
            name: getattr(self.config, name) for name in self.config.model_fields_set & set(ReplicaKeys.model_fields)
        }
        return self.config_type.parse({**of_replicas, **values})

    # State.

    @property
    def state(self) -> tuple[LlmState, str]:
        """READY if a replica is, with what is missing in the reason."""
        return self._link.state

    @property
    def is_responsive(self) -> bool:
        """False if no replica's engine gives signs of life."""
        reports = self._link.reports
        return not reports or any(report.facts["is_responsive"] for report in reports)

    @property
    def silence(self) -> float:
        """Seconds since the most silent replica's engine last gave a sign of life."""
        return max((float(report.facts["silence"]) for report in self._link.reports), default=0.0)

    @property
    def queued(self) -> int:
        """Of this process's requests, those that wait: for the deployment or, as far as is known, in a replica."""
        in_replicas: int = sum(report.facts["queued"] for report in self._link.reports)
        return min(self.running, self._waiting.waiting + in_replicas)

    @property
    def queued_bytes(self) -> int:
        """Bytes of the requests that wait for the deployment; what waits in replicas is theirs."""
        return self._waiting.waiting_bytes

    @property
    def capacity(self) -> int:
        """Requests that the replicas are given at a time, and that may wait before them."""
        return keys_of(self.config).max_waiting + self.max_running

    @property
    def max_running(self) -> int:
        """Requests that all replicas together are given at a time."""
        keys = keys_of(self.config)
        each = most_running(keys, served_class(keys.serves)(served_values(self.config)))
        count = keys.replicas if keys.autoscaling is None else keys.autoscaling.max_replicas
        return count * each

    @property
    def device(self) -> str:
        """The devices of the replicas' models, each kind once."""
        return ", ".join(sorted({report.facts["device"] for report in self._link.reports} - {""}))

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of all replicas' models together."""
        return sum(report.facts["memory_bytes"] or 0 for report in self._link.reports) or None

    @property
    def replicas(self) -> Sequence[ReplicaStatistics]:
        """The replicas that run, as they were when last looked at: a second ago."""
        return [
            ReplicaStatistics(
                name=report.name,
                state=report.facts["state"],
                running=report.facts["running"],
                queued=report.facts["queued"],
                queued_bytes=report.facts["queued_bytes"],
                is_responsive=report.facts["is_responsive"],
                engine=_engine(report.facts["statistics"]),
            )
            for report in self._link.reports
        ]

    async def close_async(self) -> None:
        """Leaves the cluster; replicas stay, unless they live in a Ray of this process or `delete_on_stop` is set."""
        await asyncio.to_thread(self._link.close)


def _engine(statistics: object) -> EngineStatistics | None:
    return statistics if isinstance(statistics, EngineStatistics) else None


def _refuse_replica_keys(changes: Mapping[Any, Any]) -> None:
    for name in map(str, changes):
        if name in ReplicaKeys.model_fields:
            raise ConfigurationError(
                f"{name}: the replicas are what the configuration file says; change it there, and have it read again",
                field=name,
            )
