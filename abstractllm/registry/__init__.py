"""The named LLMs of one configuration, which may change while they are used."""

from abstractllm._core.process_groups import process_groups
from abstractllm.registry.difference import Difference
from abstractllm.registry.registry import LLMRegistry

__all__ = ["Difference", "LLMRegistry", "end_child_processes"]


def end_child_processes() -> None:
    """Ends, at once, every process that an LLM of this process has started; takes no lock and waits for nothing."""
    process_groups.kill_all()
