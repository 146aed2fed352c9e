"""The settings of transformers' continuous batching that are tried: ours is compared with the fastest of them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENGINES", "PEERS", "Settings"]


@dataclass(frozen=True)
class Settings:
    """Settings of transformers' continuous batching; None is its own default."""

    blocks: int
    """Blocks of the cache. Without a number it would take most of the machine's memory."""
    page: int | None = None
    """Tokens of a block."""
    step_tokens: int | None = None
    """The most tokens of a step."""

    @property
    def title(self) -> str:
        """Its name in tables and notes."""
        size = "the default size" if self.page is None else f"{self.page} tokens"
        tokens = "default steps" if self.step_tokens is None else f"{self.step_tokens} tokens a step"
        return f"{self.blocks:,} blocks of {size}, {tokens}"


ENGINES = (
    Settings(256, step_tokens=512),
    Settings(2048, 16, 512),
    Settings(2304, 32, 512),
    Settings(256),
)
"""Of the engine alone. The third one holds 64 prompts of 1,024 tokens with their answers."""
PEERS = (Settings(256), Settings(2048, 16, 512))
"""Of `transformers serve`: its own defaults, and those that its engine is slower or faster with."""
