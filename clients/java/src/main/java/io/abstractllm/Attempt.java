package io.abstractllm;

import java.time.Duration;
import java.util.Optional;

/**
 * One attempt at answering a request.
 *
 * @param llm the LLM that tried
 * @param provider its provider
 * @param model its model
 * @param errorReason the reason of its failure; empty for the attempt that answered
 * @param message the error's message; empty for the attempt that answered
 * @param duration the time that it took
 */
public record Attempt(
        String llm,
        String provider,
        String model,
        Optional<ErrorReason> errorReason,
        String message,
        Duration duration) {}
