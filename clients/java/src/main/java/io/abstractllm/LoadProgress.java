package io.abstractllm;

import java.util.OptionalDouble;

/**
 * How far the loading of a model is.
 *
 * @param state {@link LlmState#READY} in the last report
 * @param phase what is being done, in a few words
 * @param fraction how much is done, from 0 to 1; empty: not known
 */
public record LoadProgress(LlmState state, String phase, OptionalDouble fraction) {}
