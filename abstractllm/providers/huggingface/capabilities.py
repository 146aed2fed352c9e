"""The abilities of local models."""

from __future__ import annotations

import dataclasses

from abstractllm.providers.huggingface.convert import RAW_OPTION
from abstractllm.providers.huggingface.protocol.messages import Loaded, Sampling
from abstractllm.types import Capabilities

__all__ = ["PARAMETERS", "capabilities_of"]

PARAMETERS = Sampling.__struct_fields__
"""The parameters that an engine is told."""

_EFFORT = "reasoning_effort"
_UNLOADED = Capabilities(
    tools=True,
    json_object=True,
    json_schema=True,
    regex=True,
    grammar=True,
    logprobs=True,
    seed=True,
    token_counting=True,
    parameters=(*PARAMETERS, _EFFORT),
    provider_options=(RAW_OPTION,),
)
"""Those of a model of which nothing is known."""


def capabilities_of(loaded: Loaded | None) -> Capabilities:
    """Returns what a model can do; what is possible for one that is not loaded."""
    if loaded is None:
        return _UNLOADED
    return dataclasses.replace(
        _UNLOADED,
        tools=loaded.tools,
        json_object=loaded.formats,
        json_schema=loaded.formats,
        regex=loaded.formats,
        grammar=loaded.formats,
        parameters=_UNLOADED.parameters if loaded.effort else PARAMETERS,
        system_prompt=loaded.system_prompt,
        chat=loaded.chat,
        context_window=loaded.context_window,
        quantization=loaded.quantization,
        device=loaded.device,
        max_concurrent_requests=loaded.slots,
    )
