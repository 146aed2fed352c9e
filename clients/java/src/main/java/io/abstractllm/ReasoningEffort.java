package io.abstractllm;

/** The effort that a reasoning model may spend before it answers. */
public enum ReasoningEffort {
    /** No reasoning. */
    NONE(io.abstractllm.v1.ReasoningEffort.REASONING_EFFORT_NONE),

    /** The least reasoning that the model offers. */
    MINIMAL(io.abstractllm.v1.ReasoningEffort.REASONING_EFFORT_MINIMAL),

    /** Little reasoning. */
    LOW(io.abstractllm.v1.ReasoningEffort.REASONING_EFFORT_LOW),

    /** A middling amount of reasoning. */
    MEDIUM(io.abstractllm.v1.ReasoningEffort.REASONING_EFFORT_MEDIUM),

    /** Much reasoning. */
    HIGH(io.abstractllm.v1.ReasoningEffort.REASONING_EFFORT_HIGH),

    /** The most reasoning that the model offers. */
    XHIGH(io.abstractllm.v1.ReasoningEffort.REASONING_EFFORT_XHIGH);

    final io.abstractllm.v1.ReasoningEffort value;

    ReasoningEffort(io.abstractllm.v1.ReasoningEffort value) {
        this.value = value;
    }
}
