"""The configuration file, taken over while the server runs: all of it, or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from abstractllm.errors import AbstractLLMError, ConfigurationError
from abstractllm.registry import Difference, LLMRegistry
from abstractllm.types import LlmState
from abstractllm_server.lifecycle.service_manager import ServiceManager
from abstractllm_server.settings import ServerSettings, faults_of
from abstractllm_server.telemetry.measurements import Measurement

__all__ = ["ConfigurationReloader", "Preparation"]

logger = logging.getLogger("abstractllm.server")

Preparation = Callable[[ServerSettings], Callable[[], None]]
"""Prepares the change of a key, which may fail, and returns the function that makes it, which may not."""

_KEYS_OF_LLMS = ("llms", "default", "max_loaded", "memory_budget")
_KEYS_OF_LOADS = ("preload",)
_KEYS_WITH_A_VALUE = ("tls.client_ca",)
"""Keys of which another value can be taken over, but neither the first nor none."""


class ConfigurationReloader:
    """Reads the configuration again and puts what changed in force, while everything else goes on.

    A key that can only be set when the server starts keeps its value, and is named. Whatever fails, nothing is changed
    then. Requests to reload that come while one is under way are one more.

    Args:
        load: Reads and checks the configuration; called in a thread.
        settings: The settings in force.
        registry: The LLMs.
        preparations: The keys, beside those of the LLMs, that can change while the server runs.
        service_manager: Is told.
        load_llms: Begins to load LLMs, by their names: those of `preload` that are new there, were changed, or have
            failed. Its second argument is all of `preload`: others are tried again no more.

    Attributes:
        settings: The settings in force.
        outcomes: How many reloads ended in `success` and `failure`.
    """

    def __init__(
        self,
        load: Callable[[], ServerSettings],
        settings: ServerSettings,
        registry: LLMRegistry,
        preparations: Mapping[str, Preparation],
        service_manager: ServiceManager,
        load_llms: Callable[[Sequence[str], Sequence[str]], None],
    ) -> None:
        self.settings = settings
        self.outcomes: Counter[str] = Counter(success=0, failure=0)
        self._load = load
        self._registry = registry
        self._preparations = preparations
        self._service_manager = service_manager
        self._requests = asyncio.Event()
        self._load_llms = load_llms

    def request(self) -> None:
        """Has the configuration read again as soon as can be; called in the event loop."""
        self._requests.set()

    async def run(self) -> None:
        """Serves requests to reload until it is cancelled."""
        while True:
            await self._requests.wait()
            self._requests.clear()
            logger.info("the configuration is read again")  # models that are loaded for it may take minutes
            self._service_manager.reloading()
            outcome = "failure"
            try:
                await self._reload()
                outcome = "success"
            except ConfigurationError as error:
                for fault in faults_of(error):
                    logger.error("the configuration is not taken over, nothing has changed: %s", fault.message)
            except AbstractLLMError as error:
                place = f"llms.{error.llm}: " if error.llm else ""
                logger.error("the configuration is not taken over, nothing has changed: %s%s", place, error.message)
            except Exception:
                logger.exception("the configuration is not taken over, nothing has changed")
            self.outcomes[outcome] += 1
            self._service_manager.ready(f"reload: {outcome}")

    def measurements(self) -> Iterator[Measurement]:
        """Returns how many reloads succeeded and failed."""
        for outcome, count in self.outcomes.copy().items():
            yield Measurement("abstractllm.server.config.reloads", count, {"outcome": outcome})

    async def _reload(self) -> None:
        """Takes the configuration over.

        Raises:
            AbstractLLMError: The reason why it cannot be; nothing is changed then.
        """
        before = self.settings
        loaded = await asyncio.to_thread(self._load)
        changed = list(_changed_keys(before, loaded))
        fixed = [key for key in changed if self._is_fixed(key, before, loaded)]
        after = loaded
        for key in fixed:
            after = _with_value_of(before, key, after)
        # What stays in force must go together with what is new: a listener without credentials any more, say.
        try:
            after.check()
        except ConfigurationError as error:
            if fixed:
                error.message += f"; until the server is started again {', '.join(fixed)} has its earlier value"
            raise
        # One function may prepare several keys.
        functions = {self._preparations[key]: None for key in changed if key in self._preparations and key not in fixed}

        async def prepare_others() -> Callable[[], None]:
            changes = [await asyncio.to_thread(function, after) for function in functions]

            def change_others() -> None:
                for change in changes:
                    change()
                self.settings = after

            return change_others

        default_before = self._registry.default
        wanted_before = before.preload if before.preload is not None else (default_before,)
        await prepare_others()  # for its faults: loading models may take long
        difference = await self._registry.apply(
            after.llms,
            after.default,
            max_loaded=after.max_loaded,
            memory_budget=after.memory_budget,
            prepare_others=prepare_others,
        )
        if self._registry.default != default_before and "default" not in changed:
            changed.append("default")  # where the file names none, the first LLM is another one
        self._tell(difference, changed, fixed)
        wanted = after.preload if after.preload is not None else (self._registry.default,)
        unchanged = set(wanted_before) - {*difference.added, *difference.changed}
        # What kept one from being loaded may lie outside the file, and be mended by now.
        self._load_llms(
            [name for name in wanted if name not in unchanged or self._registry[name].state[0] is LlmState.FAILED],
            wanted,
        )

    def _is_fixed(self, key: str, before: ServerSettings, after: ServerSettings) -> bool:
        """Returns whether a change of a key takes a restart."""
        if key in _KEYS_WITH_A_VALUE and None in (_value(before, key), _value(after, key)):
            return True
        return key not in (*self._preparations, *_KEYS_OF_LLMS, *_KEYS_OF_LOADS)

    def _tell(self, difference: Difference, changed: list[str], fixed: list[str]) -> None:
        keys = ", ".join(key for key in changed if key not in (*fixed, "llms"))
        logger.info("the configuration is taken over: %s%s", difference, f"; {keys}" if keys else "")
        for key in fixed:
            logger.warning(
                "%s: takes effect when the server is started again; until then the earlier value counts", key
            )


def _changed_keys(before: ServerSettings, after: ServerSettings) -> Iterator[str]:
    """Yields the keys whose values differ, of groups of keys (`tls.subjects`) where both have the group."""
    for key in ServerSettings.model_fields:
        old, new = getattr(before, key), getattr(after, key)
        if isinstance(old, BaseModel) and isinstance(new, BaseModel):
            for name in type(old).model_fields:
                if _differ(getattr(old, name), getattr(new, name)):
                    yield f"{key}.{name}"
        elif _differ(old, new):
            yield key


def _differ(old: object, new: object) -> bool:
    """Returns whether two values differ; the order of names counts, too: of several the first one may win."""
    return old != new or (isinstance(old, dict) and isinstance(new, dict) and list(old) != list(new))


def _value(settings: ServerSettings, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _with_value_of(before: ServerSettings, key: str, after: ServerSettings) -> ServerSettings:
    """Returns settings in which a key has the value that it had before."""
    group, _, name = key.partition(".")
    value = _value(before, key)
    if name:
        value = getattr(after, group).model_copy(update={name: value})
    return after.model_copy(update={group: value})
