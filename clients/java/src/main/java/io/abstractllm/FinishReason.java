package io.abstractllm;

/**
 * The reason why an answer ended. A value that only newer servers know has no constant; it keeps its number.
 *
 * @param number the number in the contract
 */
public record FinishReason(int number) {
    /** The model ended its answer by itself. */
    public static final FinishReason STOP = new FinishReason(io.abstractllm.v1.FinishReason.FINISH_REASON_STOP_VALUE);

    /** {@code max_tokens}, or the end of the context window, was reached. */
    public static final FinishReason MAX_TOKENS =
            new FinishReason(io.abstractllm.v1.FinishReason.FINISH_REASON_MAX_TOKENS_VALUE);

    /** One of the {@code stop} texts was found; the answer ends before it. */
    public static final FinishReason STOP_SEQUENCE =
            new FinishReason(io.abstractllm.v1.FinishReason.FINISH_REASON_STOP_SEQUENCE_VALUE);

    /** The model asks for tools to be called. */
    public static final FinishReason TOOL_CALLS =
            new FinishReason(io.abstractllm.v1.FinishReason.FINISH_REASON_TOOL_CALLS_VALUE);

    /** The provider's filter cut the answer. */
    public static final FinishReason CONTENT_FILTER =
            new FinishReason(io.abstractllm.v1.FinishReason.FINISH_REASON_CONTENT_FILTER_VALUE);

    /** The model declined to answer. */
    public static final FinishReason REFUSAL =
            new FinishReason(io.abstractllm.v1.FinishReason.FINISH_REASON_REFUSAL_VALUE);

    /** The word, such as {@code max_tokens}; the number's digits for a value that this client does not know. */
    @Override
    public String toString() {
        return EnumNames.lowerCaseName(io.abstractllm.v1.FinishReason.getDescriptor(), number);
    }
}
