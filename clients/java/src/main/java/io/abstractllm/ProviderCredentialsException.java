package io.abstractllm;

/** The provider's key is missing or refused. */
public final class ProviderCredentialsException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public ProviderCredentialsException(String message) {
        this(new ErrorFacts(message));
    }

    ProviderCredentialsException(ErrorFacts facts) {
        super(facts, ErrorReason.PROVIDER_CREDENTIALS, false);
    }
}
