package io.abstractllm;

import java.util.OptionalLong;

/**
 * The tokens that an answer cost, as the provider counts them; empty where it does not say, which is not zero.
 *
 * @param inputTokens tokens of the input, cached ones included
 * @param outputTokens tokens of the answer, reasoning included
 * @param cachedInputTokens those of the input that came from a cache
 * @param reasoningTokens those of the answer that were reasoning
 */
public record Usage(
        OptionalLong inputTokens,
        OptionalLong outputTokens,
        OptionalLong cachedInputTokens,
        OptionalLong reasoningTokens) {}
