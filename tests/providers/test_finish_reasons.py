"""The words for an answer's end, as the documentations of APIs and servers list them."""

import logging

import pytest

from abstractllm import FinishReason, IncompleteStreamError, ProviderUnavailableError
from abstractllm.providers.hosted.finish_reasons import FAILED, finish_reason_of, known_finish_reason

WORDS: dict[FinishReason | str | None, str] = {
    FinishReason.STOP: (
        "stop end_turn pause_turn "  # OpenAI, Anthropic
        "eos eos_token eosFound stop_token end_of_text end_of_sequence "  # Together, TGI, LM Studio, Aleph Alpha
        "STOP FinishReason.STOP FINISH_REASON_STOP REASON_STOP COMPLETE "  # Gemini, xAI, Cohere
        "normal completed done finished"  # Baidu
    ),
    FinishReason.MAX_TOKENS: (
        "length max_tokens model_context_window_exceeded model_length "  # OpenAI, Anthropic, Mistral
        "MAX_TOKENS REASON_MAX_LEN REASON_MAX_CONTEXT limit token_limit maximum_tokens "  # Gemini, xAI, llama.cpp, IBM
        "maxPredictedTokensReached contextLengthReached max_length max_new_tokens max_output_tokens context truncated"
    ),
    FinishReason.STOP_SEQUENCE: "stop_sequence STOP_SEQUENCE stopStringFound stop_sequence_reached word",
    FinishReason.TOOL_CALLS: "tool_calls function_call tool_use TOOL_CALL REASON_TOOL_CALLS toolCalls",
    FinishReason.CONTENT_FILTER: (
        "content_filter content_filtered guardrail_intervened sensitive "  # OpenAI, Bedrock, Zhipu
        "SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII IMAGE_SAFETY model_armor"  # Gemini, Vertex
    ),
    FinishReason.REFUSAL: "refusal",
    FAILED: (
        "error abort ERROR ERROR_TOXIC ERROR_LIMIT TIMEOUT USER_CANCEL cancelled "  # OpenRouter, vLLM, Cohere, IBM
        "insufficient_system_resource network_error userStopped modelUnloaded failed"  # DeepSeek, Zhipu, LM Studio
    ),
    None: (
        "OTHER FINISH_REASON_UNSPECIFIED MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS LANGUAGE "
        "time_limit REASON_TIME_LIMIT not_finished none null martian melted incomplete"
    ),
}
CASES = [(word, reason) for reason, words in WORDS.items() for word in words.split()]


@pytest.mark.parametrize(("word", "reason"), CASES, ids=[word for word, _ in CASES])
def test_each_word_of_the_documentations_has_its_meaning(word, reason):
    assert known_finish_reason(word) == reason


def test_a_word_of_another_api_is_logged_and_the_api_s_own_are_not(caplog):
    caplog.set_level(logging.INFO, "abstractllm")
    assert finish_reason_of("eosFound", "HTTP 200") is FinishReason.STOP
    assert "'eosFound' is read as stop (HTTP 200)" in caplog.text
    caplog.clear()
    for word in ("stop", "length", "end_turn", "tool_use"):
        finish_reason_of(word)
    assert caplog.text == ""


def test_a_word_that_says_nothing_and_one_that_says_failure_are_errors():
    with pytest.raises(IncompleteStreamError, match=r"'martian' \(HTTP 200\)"):
        finish_reason_of("martian", "HTTP 200")
    with pytest.raises(ProviderUnavailableError, match="'network_error'"):
        finish_reason_of("network_error")
