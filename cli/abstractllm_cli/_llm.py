"""The LLM that a command talks to: in this process, or on a server. Both have the same methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from abstractllm_cli._options import DEFAULT_PROVIDER, usage
from abstractllm_cli._output import working
from abstractllm_cli._server import Server

if TYPE_CHECKING:
    from abstractllm import AbstractLLMInterface, LLMRegistry

# Events, completions and messages are the library's or the client's, two sets of classes with the same names and
# fields: hence `Any`.
Message = Any
Event = Any
Completion = Any


class LLM(Protocol):
    """The methods that the commands use of `AbstractLLMInterface` and of `RemoteLLM`; their options are typed there."""

    @property
    def complete(self) -> Callable[..., Completion]:
        """Return the whole answer."""

    @property
    def stream(self) -> Callable[..., Iterator[Event]]:
        """Return the answer's events."""


@dataclass(frozen=True)
class Target:
    """The LLM that the command line names."""

    provider: str | None
    model: str | None
    config: Path | None
    llm: str | None
    server: Server | None

    def check(self) -> None:
        """Refuses options that contradict each other.

        Raises:
            typer.BadParameter: Naming the option that contradicts the others.
        """
        if self.server is not None:
            if self.provider is not None:
                usage("a server has its own providers: leave out --provider or --address", "--provider")
            if self.config is not None:
                usage("a server has its own configuration: leave out --config or --address", "--config")
            return
        if self.config is not None:
            if self.provider is not None:
                usage("the file names the providers: leave out --provider or --config", "--provider")
        elif self.llm is not None:
            usage("only --address and --config have LLMs by name", "--llm")

    def parameters(self) -> dict[str, Any]:
        """Returns the parameters of every request: the model, if a file or a server configures the LLM."""
        configured_elsewhere = self.server is not None or self.config is not None
        return {"model": self.model} if configured_elsewhere and self.model is not None else {}


@contextmanager
def open_llm(target: Target) -> Iterator[LLM]:
    """Opens the LLM that the command line names, loads it if it is in this process, and closes it at the end.

    Raises:
        AbstractLLMError: The library's or the client's, if there is no such LLM or it cannot be loaded.
    """
    if target.server is not None:
        with target.server.connect(target.llm) as remote:
            yield remote
    elif target.config is not None:
        registry = read_registry(target.config)
        with registry[target.llm or ""] as local:
            _load(local)
            yield local
    else:
        from abstractllm.factory import provider_class

        settings: Mapping[str, Any] = {} if target.model is None else {"model": target.model}
        with provider_class(target.provider or DEFAULT_PROVIDER)(settings) as local:
            _load(local)
            yield local


def read_registry(path: Path) -> LLMRegistry:
    """Reads the LLMs of a configuration file; nothing is loaded or connected yet.

    Raises:
        ConfigurationError: Naming what is wrong in the file, and where.
    """
    from abstractllm.errors import ConfigurationError
    from abstractllm.registry import LLMRegistry
    from abstractllm_server.settings import load_settings, locate

    # Nothing listens here, so where the file would have a server listen does not matter.
    settings = load_settings(path, {"insecure": True})
    try:
        return LLMRegistry.from_config(settings.llms, settings.default)
    except ConfigurationError as error:
        raise locate(error, path) from error


def _load(llm: AbstractLLMInterface) -> None:
    import asyncio

    from abstractllm import LlmState

    if llm.state[0] is LlmState.READY:
        return
    with working(f"Loading {llm.config.model}") as show:
        asyncio.run(_follow_load(llm, show))


async def _follow_load(llm: AbstractLLMInterface, show: Callable[[str], None]) -> None:
    """Loads the LLM, and shows the progress that the provider reports."""
    load_progress = getattr(llm, "load_progress", None)
    if load_progress is None:
        await llm.load()
        return
    async for progress in load_progress():
        if progress.phase:
            share = "" if progress.fraction is None else f" {progress.fraction:.0%}"
            show(f"Loading {llm.config.model}: {progress.phase}{share}")
