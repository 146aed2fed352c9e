package io.abstractllm;

/**
 * How far the unloading of a model is.
 *
 * @param state {@link LlmState#UNLOADED} in the last report
 * @param running requests that still run
 */
public record UnloadProgress(LlmState state, int running) {}
