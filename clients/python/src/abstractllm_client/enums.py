"""The closed sets of words: roles, finish reasons, states, and the keys of parameters and capabilities.

A value that a newer server sends and this client does not know comes through as its number.
"""

from __future__ import annotations

from enum import StrEnum

from abstractllm_client._model_parameter import ModelParameter

__all__ = [
    "FinishReason",
    "LlmState",
    "ModelCapability",
    "ModelParameter",
    "ParametersPolicy",
    "Quantization",
    "ReasoningEffort",
    "Role",
    "ToolChoiceMode",
]


class Role(StrEnum):
    """The speaker of a chat message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(StrEnum):
    """The reason why an answer ended."""

    STOP = "stop"
    """The model ended its answer by itself."""
    MAX_TOKENS = "max_tokens"
    """`max_tokens`, or the end of the context window, was reached."""
    STOP_SEQUENCE = "stop_sequence"
    """One of the `stop` texts came up; the answer ends before it."""
    TOOL_CALLS = "tool_calls"
    """The model asks for tools to be called."""
    CONTENT_FILTER = "content_filter"
    """The provider's filter cut the answer."""
    REFUSAL = "refusal"
    """The model declined to answer."""


class ReasoningEffort(StrEnum):
    """The amount of reasoning that a model may spend before its answer."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"


class ToolChoiceMode(StrEnum):
    """The rule for calling tools: the model may, must not, or must call one."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


class ParametersPolicy(StrEnum):
    """The treatment of a parameter that the LLM does not support."""

    REJECT = "reject"
    """The request is refused and the parameter is named (the default)."""
    DROP_UNSUPPORTED = "drop_unsupported"
    """The parameter is left out and listed in `dropped_parameters`."""


class LlmState(StrEnum):
    """The state of an LLM, from not loaded to ready."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class Quantization(StrEnum):
    """The precision in which a local model's weights are loaded."""

    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"


class ModelCapability(StrEnum):
    """The keys of the capabilities that `get_capabilities` returns."""

    STREAMING = "streaming"
    SYSTEM_PROMPT = "system_prompt"
    CHAT = "chat"
    TOOLS = "tools"
    IMAGE_INPUT = "image_input"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    GRAMMAR = "grammar"
    LOGPROBS = "logprobs"
    SEED = "seed"
    TOKEN_COUNTING = "token_counting"
    PARAMETERS = "parameters"
    PROVIDER_OPTIONS = "provider_options"
    CONTEXT_WINDOW = "context_window"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    QUANTIZATION = "quantization"
    DEVICE = "device"
    MAX_CONCURRENT_REQUESTS = "max_concurrent_requests"
    MAX_TOKENS = "max_tokens"
    """Another name of `max_output_tokens`."""
    SUPPORTS_SYSTEM_PROMPT = "supports_system_prompt"
    """Another name of `system_prompt`."""
