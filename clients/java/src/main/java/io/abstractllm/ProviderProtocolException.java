package io.abstractllm;

/** The provider's answer cannot be understood. */
public final class ProviderProtocolException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public ProviderProtocolException(String message) {
        this(new ErrorFacts(message));
    }

    ProviderProtocolException(ErrorFacts facts) {
        super(facts, ErrorReason.PROVIDER_PROTOCOL, true);
    }
}
