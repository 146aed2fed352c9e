package io.abstractllm;

/** The LLM does not take this parameter or provider option. */
public final class UnsupportedParameterException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public UnsupportedParameterException(String message) {
        this(new ErrorFacts(message));
    }

    UnsupportedParameterException(ErrorFacts facts) {
        super(facts, ErrorReason.UNSUPPORTED_PARAMETER, false);
    }
}
