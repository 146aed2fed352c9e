"""The keyword arguments of a call and of a client, as types: for type checkers, and for those who pass them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from abstractllm_client._parameter_types import ParameterOptions, ParameterValues
from abstractllm_client.enums import ParametersPolicy, Quantization
from abstractllm_client.messages import ResponseFormat, Tool, ToolChoice

__all__ = ["ClientDefaults", "ConfigValues", "GenerationOptions"]


class GenerationOptions(ParameterOptions, total=False):
    """The options of `generate`, `complete` and `stream` beside the prompt; None means unset.

    Example:
        ```python
        def ask(llm: RemoteLLM, question: str, **options: Unpack[GenerationOptions]) -> str:
            return llm.generate(question, "Answer in one sentence.", **options)
        ```
    """

    max_new_tokens: int | None
    """Another name of `max_tokens`."""
    response_format: ResponseFormat | None
    """The form that the answer must have; free text if unset."""
    tools: Sequence[Tool] | None
    """The functions that the model may ask to be called, as a list or a tuple."""
    tool_choice: ToolChoice | None
    """The rule for calling tools, or the one tool that must be called."""
    provider_options: Mapping[str, object] | None
    """Settings outside the contract, by the keys that the LLM's capabilities list: None, booleans, numbers, strings,
    and lists and mappings of these.
    """
    request_id: str | None
    """The caller's id for logs, traces and errors, of at most 256 characters."""
    labels: Mapping[str, str] | None
    """The caller's labels for logs and traces, at most 32."""
    parameters_policy: ParametersPolicy | str | None
    """The treatment of parameters that the LLM does not support: they are refused (the default) or dropped."""
    timeout: float | None
    """Seconds that the whole call may take, waiting and retries included."""


class ClientDefaults(GenerationOptions, total=False):
    """The defaults of a client for its calls: the keyword arguments of its constructor after the connection's."""

    system_prompt: str | None
    """The instructions of calls that bring none."""


class ConfigValues(ParameterValues, total=False):
    """The configuration of an LLM: a dictionary without unset keys, the defaults of the parameters among them."""

    model: str
    """The model that it uses."""
    system_prompt: str
    """The instructions of requests that bring none."""
    timeout: float
    """Seconds that a request may take, waiting included."""
    max_retries: int
    """The retries of a request to a hosted provider before its first event."""
    keep_alive: float
    """Seconds that an idle local model stays in memory."""
    quantization: Quantization | int
    """The precision of a local model's weights."""
    provider_options: dict[str, Any]
    """Settings outside the contract, by the keys that the LLM's capabilities list."""
