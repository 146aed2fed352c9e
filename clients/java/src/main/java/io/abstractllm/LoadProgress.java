package io.abstractllm;

import java.util.OptionalDouble;

/**
 * A report of a model's loading.
 *
 * @param state {@link LlmState#READY} in the last report
 * @param phase the step that it is at, in a few words
 * @param fraction the fraction that is done, from 0 to 1; empty: not known
 */
public record LoadProgress(LlmState state, String phase, OptionalDouble fraction) {}
