package io.abstractllm;

/** The provider's key is missing or refused. */
public final class ProviderCredentialsException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public ProviderCredentialsException(String message) {
        this(new ErrorFacts(message));
    }

    ProviderCredentialsException(ErrorFacts facts) {
        super(facts, ErrorReason.PROVIDER_CREDENTIALS, false);
    }
}
