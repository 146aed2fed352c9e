package io.abstractllm;

/** No LLM of this name is configured. */
public final class UnknownLLMException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public UnknownLLMException(String message) {
        this(new ErrorFacts(message));
    }

    UnknownLLMException(ErrorFacts facts) {
        super(facts, ErrorReason.UNKNOWN_LLM, false);
    }
}
