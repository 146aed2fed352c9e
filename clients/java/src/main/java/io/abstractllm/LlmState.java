package io.abstractllm;

/**
 * The state of an LLM. A value that only newer servers know has no constant; it keeps its number.
 *
 * @param number the number in the contract
 */
public record LlmState(int number) {
    /** Not in memory; the next request loads it. */
    public static final LlmState UNLOADED = new LlmState(io.abstractllm.v1.LlmState.LLM_STATE_UNLOADED_VALUE);

    /** On its way into memory; requests wait. */
    public static final LlmState LOADING = new LlmState(io.abstractllm.v1.LlmState.LLM_STATE_LOADING_VALUE);

    /** It can answer. */
    public static final LlmState READY = new LlmState(io.abstractllm.v1.LlmState.LLM_STATE_READY_VALUE);

    /** It cannot answer. */
    public static final LlmState FAILED = new LlmState(io.abstractllm.v1.LlmState.LLM_STATE_FAILED_VALUE);

    /** The word, such as {@code ready}; the number's digits for a value that this client does not know. */
    @Override
    public String toString() {
        return EnumNames.lowerCaseName(io.abstractllm.v1.LlmState.getDescriptor(), number);
    }
}
