package io.abstractllm;

/** The deadline passed. */
public final class GenerationTimeoutException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public GenerationTimeoutException(String message) {
        this(new ErrorFacts(message));
    }

    GenerationTimeoutException(ErrorFacts facts) {
        super(facts, ErrorReason.TIMEOUT, false);
    }
}
