package io.abstractllm;

import java.time.Duration;
import java.util.Optional;

/**
 * One try at answering a request.
 *
 * @param llm the LLM that was asked
 * @param provider its provider
 * @param model its model
 * @param errorReason why it failed; empty for the one that answered
 * @param message the failure in words
 * @param duration how long it took
 */
public record Attempt(
        String llm,
        String provider,
        String model,
        Optional<ErrorReason> errorReason,
        String message,
        Duration duration) {}
