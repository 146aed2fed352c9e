"""Preparing a request before its answer is generated: its prompt, its limits and its format."""

from __future__ import annotations

from msgspec.structs import replace

from abstractllm.errors import ContextLengthExceededError, InvalidRequestError
from abstractllm.providers.huggingface.protocol.messages import Generate, Loaded
from abstractllm.providers.huggingface.worker.generation_rules import GenerationRules
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.structured.forced_call import forced_call
from abstractllm.providers.huggingface.worker.structured.format_cache import FormatKey, format_key
from abstractllm.providers.huggingface.worker.structured.matcher import Matcher

__all__ = ["compile_format", "find_format", "format_key_of", "tokenize"]


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
    request.message = _with_model_stops(request.message, model.rules)
    message, builder = request.message, model.prompt_builder
    request.prompt = builder.encode(message.conversation)
    request.is_reasoning = builder.ends_in_reasoning(message.conversation, request.prompt)
    if not request.is_reasoning:
        request.reasoning_start = builder.template.reasoning_start(request.prompt)
    request.max_tokens = _max_tokens(request, model.description, model.rules)
    _check_logit_bias(request, model.vocabulary_size)
    return message.format is not None or bool(message.conversation.forced)


def find_format(model: LoadedModel, request: EngineRequest) -> bool:
    """Gives a request that has a format its matcher, if the format was compiled of late.

    Returns:
        Whether it was; `compile_format` must follow if not.

    Raises:
        AbstractLLMError: If the format was refused of late.
    """
    matcher = model.grammars.cached(format_key_of(request))
    if matcher is not None:
        _set_matcher(request, matcher)
    return matcher is not None


def compile_format(model: LoadedModel, request: EngineRequest) -> None:
    """Compiles the format of a request that has one, or must be answered by a tool call.

    A format applies to the answer only, not to the reasoning before it.

    Raises:
        InvalidRequestError: If the format, or the schema of a tool's arguments, cannot be used.
        OverloadedError: If the machine is too busy to tell.
        UnsupportedFeatureError: If the model's answers cannot be held to a format.
    """
    key, format = format_key_of(request), request.message.format
    if format is not None:
        matcher = model.grammars.compile(format, key=key)
    else:
        try:
            template, tokens = model.prompt_builder.template, model.grammars.special_tokens
            call = forced_call(template, request.message.conversation, tokens)
        except InvalidRequestError as error:
            model.grammars.refuse(key, error)
            raise
        matcher = model.grammars.compile(call, key=key)
    _set_matcher(request, matcher)


def format_key_of(request: EngineRequest) -> FormatKey:
    """Returns the key of a request's format: equal ones are compiled once."""
    format, conversation = request.message.format, request.message.conversation
    if format is not None:
        return format_key(format.kind, format.text)
    parts = ["tool call"]
    for index, tool in enumerate(conversation.tools):
        if tool.name in conversation.forced:
            parts += [str(index), tool.name, tool.schema]
    return format_key(*parts)


def _set_matcher(request: EngineRequest, matcher: Matcher) -> None:
    matcher.is_active = not request.is_reasoning
    matcher.reasoning_start = request.reasoning_start
    request.matcher = matcher


def _with_model_stops(message: Generate, rules: GenerationRules) -> Generate:
    """Returns the request, with the stop strings of the model's generation configuration if it names none."""
    if message.sampling.stop is not None or not rules.stop_strings:
        return message
    return replace(message, sampling=replace(message.sampling, stop=rules.stop_strings))


def _max_tokens(request: EngineRequest, model: Loaded, rules: GenerationRules) -> int:
    """Returns the most tokens to generate.

    Raises:
        ContextLengthExceededError: If the prompt, or the prompt and `max_tokens`, do not fit the context window, the
            cache or the length that the model's generation configuration allows.
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
    if max_tokens is not None:
        return max_tokens
    limit = rules.new_token_limit(prompt_tokens)
    if limit == 0:
        raise ContextLengthExceededError(
            f"prompt: {prompt_tokens} tokens leave no room for an answer in the max_length ({rules.max_length}) of the "
            "model's generation configuration, which parameters.max_tokens overrides",
            field="prompt",
            limit=rules.max_length,
            requested=prompt_tokens,
        )
    return window - prompt_tokens if limit is None else min(limit, window - prompt_tokens)


def _check_logit_bias(request: EngineRequest, vocabulary_size: int) -> None:
    unknown = [token for token in request.message.sampling.logit_bias or () if token >= vocabulary_size]
    if unknown:
        raise InvalidRequestError(
            f"parameters.logit_bias: token ids must be below {vocabulary_size}, got {unknown[0]}",
            field="parameters.logit_bias",
            limit=f"below {vocabulary_size}",
            requested=unknown[0],
        )
