"""The difference between the LLMs that there are and those of a new configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from abstractllm.config import LLMConfig
from abstractllm.interface import AbstractLLMInterface
from abstractllm.registry.assembly import Assembly

__all__ = ["Difference", "Plan", "make_plan"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The names of the LLMs that a new configuration concerns."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = (("added", self.added), ("changed", self.changed), ("removed", self.removed))
        return ", ".join(f"{word} {' '.join(names)}" for word, names in parts if names) or "no LLM changed"


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from the LLMs that there are to those of a new configuration."""

    llms: dict[str, AbstractLLMInterface[Any]]
    """The LLMs as they will be, in the configuration's order."""
    configs: dict[str, LLMConfig]
    """The configurations of all of them; those that stay may have another one now."""
    changing: tuple[AbstractLLMInterface[Any], ...]
    """Those that stay and get another configuration."""
    arriving: tuple[AbstractLLMInterface[Any], ...]
    leaving: tuple[AbstractLLMInterface[Any], ...]
    difference: Difference


def make_plan(present: Mapping[str, AbstractLLMInterface[Any]], lines: Mapping[str, Any]) -> Plan:
    """Compares LLMs with a configuration; nothing is loaded, connected or changed.

    An LLM stays, with its connections and its loaded model, if its provider is the same; one that has others behind it
    only if these stay, too. All others are made anew.

    Args:
        present: The LLMs that there are, by name.
        lines: For each name `provider` and the keys that `create_llm` takes.

    Raises:
        ConfigurationError: Naming the LLM and the key that is wrong.
    """
    trial = Assembly(lines)
    made = {name: trial.get(name) for name in lines}
    assembly = Assembly(lines)
    for name in lines:
        _settle(name, made, present, assembly)
    llms = {name: assembly.get(name) for name in lines}
    configs = {name: llm.config for name, llm in made.items()}
    changing = tuple(llm for name, llm in llms.items() if llm is present.get(name) and llm.config != configs[name])
    arriving = tuple(llm for name, llm in llms.items() if llm is not present.get(name))
    leaving = tuple(llm for name, llm in present.items() if llm is not llms.get(name))
    replaced = {llm.name for llm in leaving if llm.name in llms}
    difference = Difference(
        added=tuple(llm.name for llm in arriving if llm.name not in replaced),
        changed=tuple(name for name in llms if name in replaced or llms[name] in changing),
        removed=tuple(llm.name for llm in leaving if llm.name not in replaced),
    )
    return Plan(llms, configs, changing, arriving, leaving, difference)


def _settle(
    name: str,
    made: Mapping[str, AbstractLLMInterface[Any]],
    present: Mapping[str, AbstractLLMInterface[Any]],
    assembly: Assembly,
) -> AbstractLLMInterface[Any]:
    """Decides whether an LLM stays or is made anew, and puts it into the assembly."""
    new, old = made[name], present.get(name)
    members = [_settle(member.name, made, present, assembly) for member in new.members]
    has_same_members = old is not None and [*map(id, old.members)] == [*map(id, members)]
    if old is not None and type(old) is type(new) and has_same_members:
        assembly.put(old)
        return old
    if not members:
        assembly.put(new)
    return assembly.get(name)
