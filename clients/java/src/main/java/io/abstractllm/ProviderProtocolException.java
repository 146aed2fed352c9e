package io.abstractllm;

/** The provider's answer cannot be understood. */
public final class ProviderProtocolException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public ProviderProtocolException(String message) {
        this(new ErrorFacts(message));
    }

    ProviderProtocolException(ErrorFacts facts) {
        super(facts, ErrorReason.PROVIDER_PROTOCOL, true);
    }
}
