package io.abstractllm;

/** The account's quota at the provider is used up. */
public final class QuotaExceededException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public QuotaExceededException(String message) {
        this(new ErrorFacts(message));
    }

    QuotaExceededException(ErrorFacts facts) {
        super(facts, ErrorReason.QUOTA_EXCEEDED, false);
    }
}
