"""What an Ollama server tells about a model."""

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
    """A model, as `show` describes it; `None` where it does not say."""

    abilities: tuple[str, ...] | None = None
    """`completion`, `tools`, `vision`, `thinking`, ...; old servers do not say."""
    context_length: int | None = None
    """Tokens that the model was made for."""
    num_ctx: int | None = None
    """Tokens that its Modelfile sets."""
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

    def window(self, asked: object) -> int | None:
        """The tokens that prompt and answer have together, as far as it is known.

        Args:
            asked: `num_ctx` of the request or the configuration.
        """
        sizes = [asked if isinstance(asked, int) else self.num_ctx, self.context_length]
        return min((size for size in sizes if size), default=None)

    def capabilities(self, options: Mapping[str, Any], max_concurrent_requests: int) -> Capabilities:
        """What the model can do; what is not known is left for the server to refuse."""
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
    """A model's name with its tag, as the server lists it."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def cached_model(listed: Any, used_by: tuple[str, ...] = ()) -> CachedModel:
    """A model of the SDK's `ListResponse`."""
    return CachedModel(
        name=listed.model or "",
        revisions=(listed.digest,) if listed.digest else (),
        size_bytes=int(listed.size or 0),
        last_modified_time=listed.modified_at.timestamp() if listed.modified_at else None,
        used_by=used_by,
    )
