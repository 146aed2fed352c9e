"""Preparing a request before its answer is generated: its prompt, its limits and its format."""

from __future__ import annotations

from abstractllm.errors import ContextLengthExceededError, InvalidRequestError
from abstractllm.providers.huggingface.protocol.messages import Loaded
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.structured.forced_call import forced_call

__all__ = ["compile_format", "tokenize"]


def tokenize(model: LoadedModel, request: EngineRequest) -> bool:
    """Turns the conversation of a request into tokens and checks that the answer is possible.

    Returns:
        Whether the answer has a format, so that `compile_format` must follow.

    Raises:
        InvalidRequestError: If the conversation cannot be turned into tokens, or a parameter names an unknown token.
        ContextLengthExceededError: If the prompt, or the prompt and `max_tokens`, do not fit the context window or the
            cache.
        UnsupportedFeatureError: If the model takes no tools.
        UnsupportedParameterError: If the model takes no such reasoning effort.
    """
    message, builder = request.message, model.prompt_builder
    request.prompt = builder.encode(message.conversation)
    request.is_reasoning = builder.ends_in_reasoning(message.conversation, request.prompt)
    if not request.is_reasoning:
        request.reasoning_start = builder.template.reasoning_start(request.prompt)
    request.max_tokens = _max_tokens(request, model.description)
    _check_logit_bias(request, model.vocabulary_size)
    return message.format is not None or bool(message.conversation.forced)


def compile_format(model: LoadedModel, request: EngineRequest) -> None:
    """Compiles the format of a request that has one, or must be answered by a tool call.

    A format applies to the answer only, not to the reasoning before it.

    Raises:
        InvalidRequestError: If the format, or the schema of a tool's arguments, cannot be used.
        UnsupportedFeatureError: If the model's answers cannot be held to a format.
    """
    if request.message.format is not None:
        matcher = model.grammars.compile(request.message.format)
    else:
        call = forced_call(model.prompt_builder.template, request.message.conversation)
        matcher = model.grammars.compile(call, "tools")
    matcher.is_active = not request.is_reasoning
    matcher.reasoning_start = request.reasoning_start
    request.matcher = matcher


def _max_tokens(request: EngineRequest, model: Loaded) -> int:
    """Returns the most tokens to generate.

    Raises:
        ContextLengthExceededError: If the prompt, or the prompt and `max_tokens`, do not fit the context window or the
            cache.
    """
    prompt_tokens, max_tokens = len(request.prompt), request.message.sampling.max_tokens
    window = model.longest or model.context_window
    bounds = f"the context window of {model.context_window}"
    if window < model.context_window:
        bounds = f"the {window} tokens that the cache of keys and values holds (less than {bounds})"
    if prompt_tokens >= window:
        raise ContextLengthExceededError(
            f"prompt: {prompt_tokens} tokens leave no room for an answer in {bounds}",
            field="prompt",
            limit=window,
            requested=prompt_tokens,
        )
    if max_tokens is not None and prompt_tokens + max_tokens > window:
        raise ContextLengthExceededError(
            f"parameters.max_tokens: {prompt_tokens} prompt tokens and {max_tokens} new ones exceed {bounds}",
            field="parameters.max_tokens",
            limit=window - prompt_tokens,
            requested=max_tokens,
        )
    return max_tokens or window - prompt_tokens


def _check_logit_bias(request: EngineRequest, vocabulary_size: int) -> None:
    unknown = [token for token in request.message.sampling.logit_bias or () if token >= vocabulary_size]
    if unknown:
        raise InvalidRequestError(
            f"parameters.logit_bias: token ids must be below {vocabulary_size}, got {unknown[0]}",
            field="parameters.logit_bias",
            limit=f"below {vocabulary_size}",
            requested=unknown[0],
        )
