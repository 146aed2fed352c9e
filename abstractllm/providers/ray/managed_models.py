"""The models of an LLM on Ray Serve: loaded and unloaded in its replicas, kept on the disks of their nodes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from abstractllm._core import execution
from abstractllm.config import LLMConfig
from abstractllm.enums import LlmState
from abstractllm.errors import AbstractLLMError, ModelInUseError, ModelNotFoundError
from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.ray.config import keys_of, served_class, served_values
from abstractllm.providers.ray.deployment import Definition
from abstractllm.providers.ray.link import DeploymentLink
from abstractllm.providers.ray.plain import decode, error_of
from abstractllm.providers.ray.replicas import Replicas
from abstractllm.providers.ray.settings import Settings
from abstractllm.types import CachedModel, LoadProgress, PullProgress, UnloadProgress

__all__ = ["ManagedModels"]

_REPORT_INTERVAL = 0.2


class ManagedModels(AbstractLLMInterface[LLMConfig]):
    """The part of an LLM on Ray Serve that manages its models, in all replicas at once.

    Args:
        config: The keys of `ReplicaKeys`, and those of the LLM that each replica is.
    """

    def __init__(self, config: Mapping[Any, Any]) -> None:
        super().__init__(config)
        self._settings = Settings(served_values(self.config), self._adopt_values)
        self._link = DeploymentLink(lambda: self._definition_of(self.config), self._settings, self._changed)
        self._replicas = Replicas(self._link)

    def _definition_of(self, config: LLMConfig) -> Definition:
        """Returns the deployment that a configuration describes."""
        return Definition(self.name, keys_of(config), served_values(config))

    def _adopt_values(self, values: Mapping[str, Any]) -> None:
        """Takes over what the replicas' LLM is configured with."""

    async def load(self) -> None:
        """Connects to Ray, deploys the replicas if they are to be, and loads the model in each that has unloaded it.

        It waits for all of them, `deploy_timeout` at most, while those that are there answer.

        Raises:
            ConfigurationError: If Ray is not installed.
            ProviderUnavailableError: If the cluster or the deployment is not there.
            AbstractLLMError: The reason why no replica can load its model.
        """
        await self._replicas.available()
        until = time.monotonic() + keys_of(self.config).deploy_timeout
        while self._link.is_deploying and time.monotonic() < until:  # noqa: ASYNC110 # a thread looks at Ray
            await asyncio.sleep(_REPORT_INTERVAL)
        if any(report.facts["state"] != LlmState.READY for report in self._link.reports):
            results = await self._replicas.ask_all("load")
            await asyncio.to_thread(self._link.look)
            if results and all(isinstance(result, AbstractLLMError) for result in results):
                raise results[0]

    async def load_progress(self) -> AsyncGenerator[LoadProgress, None]:
        """Loads as `load` does, and reports the progress; leaving the generator does not stop it."""
        task = asyncio.ensure_future(self.load())
        before = None
        try:
            while not task.done():
                state, phase = self.state
                progress = LoadProgress(LlmState.LOADING, phase if state is LlmState.LOADING else "replicas")
                if progress != before:
                    yield progress
                before = progress
                await asyncio.wait({task}, timeout=_REPORT_INTERVAL)
            await task
        finally:
            task.cancel()
        yield LoadProgress(LlmState.READY)

    async def unload(self, *, force: bool = False) -> AsyncGenerator[UnloadProgress, None]:
        """Unloads the model in all replicas, which stay; see `AbstractLLMInterface.unload`."""
        if self._link.is_idle:
            # As the LLM of a replica answers that has loaded nothing yet, which may be that it has no model to unload.
            served = served_class(keys_of(self.config).serves)(served_values(self.config))
            served.name = self.name
            async with aclosing(served.unload(force=force)) as reports:
                async for report in reports:
                    yield report
            return
        await asyncio.to_thread(self._link.look)
        running = sum(report.facts["running"] + report.facts["queued"] for report in self._link.reports)
        if running and not force:
            raise self._named(
                ModelInUseError(
                    f"LLM {self.name}: {running} requests run or wait; end them, or force it", requested=running
                )
            )
        yield UnloadProgress(self.state[0], running)
        for result in await self._replicas.ask_all("unload", force):
            if isinstance(result, AbstractLLMError):
                raise self._named(result)
        await asyncio.to_thread(self._link.look)
        yield UnloadProgress(LlmState.UNLOADED, 0)

    async def cached_models(self) -> list[CachedModel]:
        """Lists the models on the disks of the replicas' nodes: each once, as the node has it that has most of it."""
        models: dict[str, CachedModel] = {}
        for result in await self._replicas.ask_all("cached_models"):
            if isinstance(result, AbstractLLMError):
                raise self._named(result)
            for model in result:
                known = models.get(model.name)
                if known is None or model.size_bytes > known.size_bytes:
                    models[model.name] = model
        return [models[name] for name in sorted(models)]

    async def clear_cache(self, model: str | None, *, dry_run: bool = False) -> tuple[list[str], int]:
        """Deletes one model, or all of them, from the disks of all replicas' nodes; see `AbstractLLMInterface`.

        Nothing is deleted on a node where one of them is in use.
        """
        removed: set[str] = set()
        freed, errors = 0, []
        for result in await self._replicas.ask_all("clear_cache", model, dry_run):
            if isinstance(result, AbstractLLMError):
                errors.append(result)
            else:
                removed.update(result[0])
                # Replicas of one node share its disk: what one is to delete another may have deleted.
                freed = max(freed, result[1])
        # Another replica of the node may have been first.
        serious = [error for error in errors if not isinstance(error, ModelNotFoundError)]
        if serious or (errors and not removed):
            raise self._named((serious or errors)[0])
        return sorted(removed), freed

    async def pull(self, model: str | None = None) -> AsyncGenerator[PullProgress, None]:
        """Downloads a model to the disks of all replicas' nodes; the reports are those of one of them.

        Leaving the generator gives up this caller's interest, as `AbstractLLMInterface.pull` says.
        """
        chosen = execution.choose_model(self, self.config, model, "model")
        await self._replicas.available()
        last = None
        async with aclosing(self._replicas.stream("pull", chosen or None)) as reports:
            async for report in reports:
                if "error" in report:
                    raise self._named(error_of(report["error"]))
                if last is not None:
                    yield last
                last = decode(report["result"])
        for result in await self._replicas.ask_all("pull_quietly", chosen or None):
            if isinstance(result, AbstractLLMError):
                raise self._named(result)
        if last is not None:
            yield last

    def _named(self, error: AbstractLLMError) -> AbstractLLMError:
        """Names the LLM in an error of a replica."""
        error.llm = self.name
        return error
