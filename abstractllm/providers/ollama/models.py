"""Reading an Ollama server's description of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from abstractllm.providers.ollama.messages import PARAMETERS, PROVIDER_OPTIONS
from abstractllm.types import CachedModel, Capabilities

__all__ = ["ModelFacts", "cached_model", "full_name"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model as the server's `show` describes it; None where it does not."""

    abilities: tuple[str, ...] | None = None
    """`completion`, `tools`, `vision`, `thinking`, ...; None from old servers."""
    context_length: int | None = None
    """The context window that the model was made for, in tokens."""
    num_ctx: int | None = None
    """The context window that its Modelfile sets, in tokens."""
    quantization: str = ""

    @classmethod
    def of(cls, shown: Any) -> ModelFacts:
        """Reads the SDK's `ShowResponse`."""
        info: Mapping[str, Any] = shown.modelinfo or {}
        lengths = [value for key, value in info.items() if key.endswith(".context_length") and isinstance(value, int)]
        num_ctx = re.search(r"^num_ctx\s+(\d+)\s*$", shown.parameters or "", re.M)
        return cls(
            abilities=None if shown.capabilities is None else tuple(shown.capabilities),
            context_length=lengths[0] if lengths else None,
            num_ctx=int(num_ctx[1]) if num_ctx else None,
            quantization=(shown.details and shown.details.quantization_level) or "",
        )

    def window(self, num_ctx: object) -> int | None:
        """Returns the tokens of prompt and answer together, as far as they are known.

        Args:
            num_ctx: The provider option of the request or the configuration; anything else than an integer if unset.
        """
        sizes = [num_ctx if isinstance(num_ctx, int) else self.num_ctx, self.context_length]
        return min((size for size in sizes if size), default=None)

    def capabilities(self, options: Mapping[str, Any], max_concurrent_requests: int) -> Capabilities:
        """Returns the model's capabilities; unknown ones count as present, as the server refuses what it cannot do."""
        thinks = self._can("thinking")
        return Capabilities(
            tools=self._can("tools"),
            image_input=self._can("vision"),
            json_object=True,
            json_schema=True,
            logprobs=True,
            seed=True,
            parameters=(*PARAMETERS, "reasoning_effort") if thinks else PARAMETERS,
            provider_options=tuple(name for name in PROVIDER_OPTIONS if thinks or name != "think"),
            context_window=self.window(options.get("num_ctx")),
            quantization=self.quantization,
            max_concurrent_requests=max_concurrent_requests,
        )

    def _can(self, ability: str) -> bool:
        return self.abilities is None or ability in self.abilities


def full_name(model: str) -> str:
    """Returns a model's name with its tag, as the server lists it."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def cached_model(listed: Any, used_by: tuple[str, ...] = ()) -> CachedModel:
    """Reads one model of the SDK's `ListResponse`."""
    return CachedModel(
        name=listed.model or "",
        revisions=(listed.digest,) if listed.digest else (),
        size_bytes=int(listed.size or 0),
        last_modified_time=listed.modified_at.timestamp() if listed.modified_at else None,
        used_by=used_by,
    )
