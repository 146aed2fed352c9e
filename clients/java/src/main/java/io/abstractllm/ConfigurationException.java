package io.abstractllm;

/** The configuration is wrong or incomplete. */
public final class ConfigurationException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public ConfigurationException(String message) {
        this(new ErrorFacts(message));
    }

    ConfigurationException(ErrorFacts facts) {
        super(facts, ErrorReason.NOT_CONFIGURED, false);
    }
}
