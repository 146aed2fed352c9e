package io.abstractllm;

import java.util.OptionalLong;

/**
 * A named LLM of a server, and how it is.
 *
 * @param name the name that requests use
 * @param provider its provider, such as {@code huggingface}
 * @param model its configured model
 * @param isDefault whether the empty name means this LLM
 * @param state whether it can answer
 * @param stateReason why it is in this state, in words
 * @param device where it runs, such as {@code cuda:0}; empty for a hosted LLM
 * @param memoryBytes what it holds of its device's memory; empty: not known, or none of the server's
 * @param running requests that are being answered
 * @param queued requests that wait
 */
public record LlmInfo(
        String name,
        String provider,
        String model,
        boolean isDefault,
        LlmState state,
        String stateReason,
        String device,
        OptionalLong memoryBytes,
        int running,
        int queued) {}
