package io.abstractllm;

/** The provider asks to slow down. */
public final class RateLimitedException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public RateLimitedException(String message) {
        this(new ErrorFacts(message));
    }

    RateLimitedException(ErrorFacts facts) {
        super(facts, ErrorReason.RATE_LIMITED, true);
    }
}
