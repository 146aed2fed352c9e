package io.abstractllm;

/** The treatment of a parameter that the LLM does not support. */
public enum ParametersPolicy {
    /** The request is refused and the parameter is named; the default. */
    REJECT(io.abstractllm.v1.ParametersPolicy.PARAMETERS_POLICY_REJECT),

    /** The parameter is left out and listed in {@link Completion#droppedParameters()}. */
    DROP_UNSUPPORTED(io.abstractllm.v1.ParametersPolicy.PARAMETERS_POLICY_DROP_UNSUPPORTED);

    final io.abstractllm.v1.ParametersPolicy value;

    ParametersPolicy(io.abstractllm.v1.ParametersPolicy value) {
        this.value = value;
    }
}
