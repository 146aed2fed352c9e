package io.abstractllm;

import java.util.List;
import java.util.OptionalInt;
import java.util.OptionalLong;

/**
 * The capabilities of an LLM; a request can be checked against them before it is sent.
 *
 * @param streaming answers come in pieces
 * @param systemPrompt system prompts are understood
 * @param chat conversations are understood
 * @param tools tools are understood
 * @param imageInput images are understood
 * @param jsonObject {@link ResponseFormat#jsonObject()} is enforced
 * @param jsonSchema {@link ResponseFormat#jsonSchema(String)} is enforced
 * @param regex {@link ResponseFormat#regex(String)} is enforced
 * @param grammar {@link ResponseFormat#grammar(String)} is enforced
 * @param logprobs log-probabilities can be asked for
 * @param seed a seed is understood
 * @param tokenCounting tokens can be counted
 * @param parameters the generation parameters that it honours, by the contract's names
 * @param providerOptions the keys that {@link Options.Builder#providerOptions} may hold
 * @param contextWindow tokens of prompt and answer together; empty: not known
 * @param maxOutputTokens tokens that an answer may have; empty: not known, or bounded by the context window alone
 * @param quantization the weights' quantization, such as {@code int8}; empty if there is none, and for a hosted LLM
 * @param device the device that it runs on, such as {@code cuda:0}; empty for a hosted LLM
 * @param maxConcurrentRequests requests that can be answered at the same time; empty: not known
 */
public record Capabilities(
        boolean streaming,
        boolean systemPrompt,
        boolean chat,
        boolean tools,
        boolean imageInput,
        boolean jsonObject,
        boolean jsonSchema,
        boolean regex,
        boolean grammar,
        boolean logprobs,
        boolean seed,
        boolean tokenCounting,
        List<String> parameters,
        List<String> providerOptions,
        OptionalLong contextWindow,
        OptionalLong maxOutputTokens,
        String quantization,
        String device,
        OptionalInt maxConcurrentRequests) {}
