package io.abstractllm;

/** The provider cannot be reached, or failed by itself. */
public final class ProviderUnavailableException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public ProviderUnavailableException(String message) {
        this(new ErrorFacts(message));
    }

    ProviderUnavailableException(ErrorFacts facts) {
        super(facts, ErrorReason.PROVIDER_UNAVAILABLE, true);
    }
}
