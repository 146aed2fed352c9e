package io.abstractllm;

/** The LLM, or the server, cannot do this kind of request. */
public final class UnsupportedFeatureException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public UnsupportedFeatureException(String message) {
        this(new ErrorFacts(message));
    }

    UnsupportedFeatureException(ErrorFacts facts) {
        super(facts, ErrorReason.UNSUPPORTED_FEATURE, false);
    }
}
