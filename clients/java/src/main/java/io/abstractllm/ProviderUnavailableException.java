package io.abstractllm;

/** The provider cannot be reached, or failed by itself. */
public final class ProviderUnavailableException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public ProviderUnavailableException(String message) {
        this(new ErrorFacts(message));
    }

    ProviderUnavailableException(ErrorFacts facts) {
        super(facts, ErrorReason.PROVIDER_UNAVAILABLE, true);
    }
}
