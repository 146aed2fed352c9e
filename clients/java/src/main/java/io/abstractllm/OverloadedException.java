package io.abstractllm;

/** Too many requests wait already. */
public final class OverloadedException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public OverloadedException(String message) {
        this(new ErrorFacts(message));
    }

    OverloadedException(ErrorFacts facts) {
        super(facts, ErrorReason.OVERLOADED, true);
    }
}
