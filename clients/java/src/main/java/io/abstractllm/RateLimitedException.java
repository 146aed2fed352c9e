package io.abstractllm;

/** The provider asks to slow down. */
public final class RateLimitedException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public RateLimitedException(String message) {
        this(new ErrorFacts(message));
    }

    RateLimitedException(ErrorFacts facts) {
        super(facts, ErrorReason.RATE_LIMITED, true);
    }
}
