package io.abstractllm;

/** The configuration changed since it was read; read it again. */
public final class StaleConfigException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public StaleConfigException(String message) {
        this(new ErrorFacts(message));
    }

    StaleConfigException(ErrorFacts facts) {
        super(facts, ErrorReason.STALE_CONFIG, false);
    }
}
