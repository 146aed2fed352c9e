package io.abstractllm;

/**
 * A report of a model's unloading.
 *
 * @param state {@link LlmState#UNLOADED} in the last report
 * @param running requests that still run
 */
public record UnloadProgress(LlmState state, int running) {}
