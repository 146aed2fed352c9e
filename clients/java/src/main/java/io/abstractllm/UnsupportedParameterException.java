package io.abstractllm;

/** The LLM does not take this parameter or provider option. */
public final class UnsupportedParameterException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public UnsupportedParameterException(String message) {
        this(new ErrorFacts(message));
    }

    UnsupportedParameterException(ErrorFacts facts) {
        super(facts, ErrorReason.UNSUPPORTED_PARAMETER, false);
    }
}
