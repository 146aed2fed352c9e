"""The face of an LLM that a provider implements, and that those who serve LLMs use."""

from __future__ import annotations

import contextlib
import threading
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Generic, cast

from typing_extensions import TypeVar

from abstractllm._core import execution
from abstractllm._core.capability_check import check
from abstractllm._core.model_memory import ModelMemory
from abstractllm.config import ConfigValues, LLMConfig
from abstractllm.enums import ModelCapability, ModelParameter
from abstractllm.errors import UnsupportedFeatureError
from abstractllm.llm import LLM
from abstractllm.requests import GenerationRequest
from abstractllm.statistics import EngineStatistics, ReplicaStatistics
from abstractllm.types import (
    CachedModel,
    Capabilities,
    Completion,
    Event,
    PullProgress,
)

__all__ = ["LLM", "AbstractLLMInterface", "ModelCapability", "ModelParameter"]

ConfigT = TypeVar("ConfigT", bound=LLMConfig, default=LLMConfig)


class AbstractLLMInterface(LLM, Generic[ConfigT]):
    """The base of every provider.

    A provider is a subclass with one asynchronous generator, `events`, and the method `capabilities`; checks, defaults,
    deadlines, retries, timing and the callers' methods are inherited. Everything else here has a default that a
    provider overrides where it has more to offer. `docs/writing-a-provider.md` shows a whole one.

    Example:
        ```python
        class EchoProvider(AbstractLLMInterface):
            provider = "echo"

            async def capabilities(self, config, model):
                return Capabilities()

            async def events(self, request, config):
                yield TextDelta(request.conversation()[-1].text)
                yield Finished(FinishReason.STOP)

        print(EchoProvider().generate("Paris it is"))
        ```

    Type parameters:
        ConfigT: The configuration's class, where the provider has keys of its own: `AbstractLLMInterface[EchoConfig]`,
            with `config_type = EchoConfig`. It is `LLMConfig` if absent.

    Args:
        config: The keys of `config_type`, as strings or `ModelParameter` members; generation parameters in it are the
            LLM's defaults. The mapping is copied.

    Raises:
        ConfigurationError: If a key is unknown or its value malformed.
    """

    config_type: type[ConfigT] = cast("type[ConfigT]", LLMConfig)
    """The class of its configuration."""

    def __init__(self, config: Mapping[Any, Any] | None = None) -> None:
        self.name = self.provider
        self._config = self.config_type.parse(self.with_defaults(config or {}))
        self._executor = execution.Executor(self)
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    # A provider implements these.

    @abstractmethod
    def events(self, request: GenerationRequest, config: ConfigT) -> AsyncGenerator[Event, None]:
        """Answers a checked request: text, reasoning and tool call deltas, then exactly one `Finished`.

        Closing the generator must end the work behind it. `Started`, the message and the timing are added outside.

        Args:
            request: Its parameters hold the configuration's defaults already.
            config: The configuration the request runs under, whatever `set_config` does meanwhile.
        """

    @abstractmethod
    async def capabilities(self, config: ConfigT, model: str) -> Capabilities:
        """Returns what `model` can do under `config`."""

    # A provider may override these.

    def with_defaults(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """Returns `values` with what the provider takes from elsewhere, such as a key from the environment."""
        return {str(key): value for key, value in values.items()}

    async def check(self, request: GenerationRequest, config: ConfigT) -> tuple[GenerationRequest, tuple[str, ...]]:
        """Refuses, or drops if the request says so, what the LLM cannot honour.

        Args:
            request: Its parameters hold the model and the configuration's defaults already.
            config: The configuration that the request runs under.

        Returns:
            The request as it will be answered, and the paths of what was dropped.
        """
        return check(self, await self.capabilities(config, request.parameters.model or ""), request)

    async def count(self, request: GenerationRequest, config: ConfigT) -> int:
        """Counts the tokens of a checked request's prompt, as the model would be given it."""
        raise UnsupportedFeatureError(f"{self.provider} cannot count tokens", field="CountTokens")

    async def preview(self, changes: Mapping[Any, Any]) -> ConfigT:
        """Returns the configuration that `set_config` would give; nothing is changed or loaded.

        Raises:
            ConfigurationError: If a key is unknown or its value malformed.
            ModelInUseError: If a local model cannot be loaded beside the one that it is to replace.
        """
        return self._config.changed(changes)

    @contextlib.asynccontextmanager
    async def prepared_for(self, config: ConfigT, *, replace: bool) -> AsyncIterator[None]:
        """Prepares a change to another configuration, which `adopt` makes within the context.

        A provider overrides this whose change takes long or may fail, as the loading of a model does. If the body
        raises, everything is as before.

        Args:
            config: The configuration to come.
            replace: Allows to end what is in its way, such as a model that leaves no memory for its successor.
        """
        yield

    def adopt(self, config: ConfigT) -> None:
        """Puts another configuration in force from the next request on, whole and checked."""
        with self._lock:
            before, self._config = self._config, config
        self.reconfigured(before, config)

    def reconfigured(self, before: ConfigT, after: ConfigT) -> None:
        """Called after a change, so that the provider can renew a client or a model made from the configuration."""

    async def close_async(self) -> None:
        """Releases everything: connections, processes, memory. Running requests end with an error."""

    @property
    def members(self) -> Sequence[AbstractLLMInterface[Any]]:
        """The LLMs that it answers with, which are others' to close; most answer by themselves."""
        return ()

    # A provider with models on a disk, or in memory, overrides these, and `state`, `load`, `load_progress`, `unload`.

    async def cached_models(self) -> list[CachedModel]:
        """Lists the models that the provider keeps on a disk, this machine's or its own server's, sorted by name."""
        raise UnsupportedFeatureError(f"{self.provider} has no model cache", field="llm")

    def pull(self, model: str | None = None) -> AsyncGenerator[PullProgress, None]:
        """Downloads a model to the disk where the provider keeps its models; the last report has `done` set.

        Leaving the generator gives up this caller's interest; a download that nobody follows any more is ended, and
        what is there of it is kept for the next one.

        Args:
            model: One of the models that the configuration lists; the default one if absent.
        """
        raise UnsupportedFeatureError(f"{self.provider} has no model cache", field="llm")

    async def clear_cache(self, model: str | None, *, dry_run: bool = False) -> tuple[list[str], int]:
        """Deletes one model, or all of them if `model` is None, from the provider's cache.

        Returns:
            The names of what was (or, in a dry run, would be) deleted, and the bytes that it frees.
        """
        raise UnsupportedFeatureError(f"{self.provider} has no model cache", field="llm")

    def share(self, memory: ModelMemory) -> None:
        """Called by a registry before the LLM is used, with the memory that the LLM's models are loaded into."""

    @property
    def queued(self) -> int:
        """Requests that wait for their turn."""
        return 0

    @property
    def queued_bytes(self) -> int:
        """Bytes that these hold."""
        return 0

    @property
    def capacity(self) -> int:
        """Requests that it runs and lets wait at most; 0 where it sets no bound of its own."""
        return 0

    @property
    def max_running(self) -> int:
        """Requests that it answers at a time at most; 0 where it sets no bound of its own."""
        return 0

    @property
    def device(self) -> str:
        """The device that the model is on: `cpu`, `cuda:0`; empty for a hosted one."""
        return ""

    @property
    def memory_bytes(self) -> int | None:
        """Memory that the model takes on its device."""
        return None

    @property
    def is_responsive(self) -> bool:
        """False while the process of a local model gives no sign of life: it counts as ready no more."""
        return True

    @property
    def silence(self) -> float:
        """Seconds since the process of a local model last gave a sign of life; 0 where there is none."""
        return 0.0

    @property
    def engine_statistics(self) -> EngineStatistics | None:
        """The work and the memory of its engines; None for an LLM that does not run on this machine."""
        return None

    @property
    def replicas(self) -> Sequence[ReplicaStatistics]:
        """The replicas of an LLM that runs in several processes, by name; their engines are in none of the above."""
        return ()

    @property
    def model_cache_bytes(self) -> Mapping[str, int]:
        """The bytes of the folders on this machine's disk in which it keeps models, by folder; it may read the disk."""
        return {}

    # Those who serve LLMs use these, beside the above.

    def run(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answers a request that was built by `make_request`, as events."""
        return self._executor.run(request)

    async def run_to_end(self, request: GenerationRequest) -> Completion:
        """Answers a request that was built by `make_request`, as a whole."""
        return await self._executor.run_to_end(request)

    async def run_count(self, request: GenerationRequest) -> int:
        """Counts the prompt tokens of a request that was built by `make_request`."""
        return await self._executor.count(request)

    @property
    def config(self) -> ConfigT:
        """The configuration of the next request; immutable."""
        return self._config

    @property
    def running(self) -> int:
        """Requests being answered now, waiting ones included."""
        return self._executor.running

    def on_change(self, listener: Callable[[], None]) -> None:
        """Registers a function that is called, from any thread, whenever `state` changes."""
        self._listeners.append(listener)

    def off_change(self, listener: Callable[[], None]) -> None:
        """Takes back `on_change`; nothing happens if the function is not registered."""
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    # The callers' face.

    async def get_capabilities_async(self, model: str | None = None) -> Capabilities:
        """Returns the abilities and limits of the LLM; see `LLM.get_capabilities_async`."""
        config = self._config
        return await self.capabilities(config, execution.choose_model(self, config, model, "model"))

    def get_config(self) -> ConfigValues:
        """Returns a deep copy of the configuration: flat, without unset keys, secrets replaced by asterisks."""
        return self._config.public()

    def set_config(self, config: Mapping[Any, Any] | None = None, **changes: Any) -> ConfigValues:
        """Merges changes into the configuration; see `LLM.set_config`."""
        with self._lock:
            before = self._config
            self._config = before.changed({**(config or {}), **changes})
        self.reconfigured(before, self._config)
        return self.get_config()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} model={self._config.model!r}>"
