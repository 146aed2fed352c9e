package io.abstractllm;

/** No LLM of this name is configured. */
public final class UnknownLLMException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public UnknownLLMException(String message) {
        this(new ErrorFacts(message));
    }

    UnknownLLMException(ErrorFacts facts) {
        super(facts, ErrorReason.UNKNOWN_LLM, false);
    }
}
