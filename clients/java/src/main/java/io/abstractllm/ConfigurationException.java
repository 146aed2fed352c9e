package io.abstractllm;

/** The configuration is wrong or incomplete. */
public final class ConfigurationException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public ConfigurationException(String message) {
        this(new ErrorFacts(message));
    }

    ConfigurationException(ErrorFacts facts) {
        super(facts, ErrorReason.NOT_CONFIGURED, false);
    }
}
