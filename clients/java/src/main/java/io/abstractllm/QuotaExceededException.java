package io.abstractllm;

/** The account's quota at the provider is used up. */
public final class QuotaExceededException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public QuotaExceededException(String message) {
        this(new ErrorFacts(message));
    }

    QuotaExceededException(ErrorFacts facts) {
        super(facts, ErrorReason.QUOTA_EXCEEDED, false);
    }
}
