package io.abstractllm;

import java.util.OptionalLong;

/**
 * A named LLM of a server, and its state.
 *
 * @param name the name that requests use
 * @param provider its provider, such as {@code huggingface}
 * @param model its configured model
 * @param isDefault true if the empty name means this LLM
 * @param state its state
 * @param stateReason the reason of this state, in words
 * @param device the device that it runs on, such as {@code cuda:0}; empty for a hosted LLM
 * @param memoryBytes the memory of the device that it takes; empty if it is not known, and for a hosted LLM
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
