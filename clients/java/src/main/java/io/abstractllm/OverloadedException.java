package io.abstractllm;

/** Too many requests wait already. */
public final class OverloadedException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public OverloadedException(String message) {
        this(new ErrorFacts(message));
    }

    OverloadedException(ErrorFacts facts) {
        super(facts, ErrorReason.OVERLOADED, true);
    }
}
