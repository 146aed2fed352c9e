package io.abstractllm;

/** The configuration changed since it was read; read it again. */
public final class StaleConfigException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public StaleConfigException(String message) {
        this(new ErrorFacts(message));
    }

    StaleConfigException(ErrorFacts facts) {
        super(facts, ErrorReason.STALE_CONFIG, false);
    }
}
