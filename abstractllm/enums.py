"""The words that have a fixed set of values. Each member is a string, so the string can be used in its place."""

from enum import StrEnum

from abstractllm._model_parameter import ModelParameter

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
    """The reason for which an answer ended."""

    STOP = "stop"
    """The model ended its answer by itself."""
    MAX_TOKENS = "max_tokens"
    """`max_tokens`, or the end of the context window, was reached."""
    STOP_SEQUENCE = "stop_sequence"
    """One of `stop` was found; the answer ends before it."""
    TOOL_CALLS = "tool_calls"
    """The model asks for tools to be called."""
    CONTENT_FILTER = "content_filter"
    """The provider's filter cut the answer."""
    REFUSAL = "refusal"
    """The model declined to answer."""


class ReasoningEffort(StrEnum):
    """The effort that a reasoning model may spend on thinking before it answers."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"


class ToolChoiceMode(StrEnum):
    """The freedom of the model to call tools: it may, it must not, or it must."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


class ParametersPolicy(StrEnum):
    """The treatment of a parameter that the LLM cannot honour."""

    REJECT = "reject"
    """The request is refused and the parameter is named (the default)."""
    DROP_UNSUPPORTED = "drop_unsupported"
    """The parameter is left out and listed in `dropped_parameters`."""


class LlmState(StrEnum):
    """The state of an LLM's model."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class Quantization(StrEnum):
    """The precision a local model's weights are loaded in."""

    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"


class ModelCapability(StrEnum):
    """The keys of what `get_capabilities` returns."""

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
