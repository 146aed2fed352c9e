package io.abstractllm;

/** The deadline passed. */
public final class GenerationTimeoutException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public GenerationTimeoutException(String message) {
        this(new ErrorFacts(message));
    }

    GenerationTimeoutException(ErrorFacts facts) {
        super(facts, ErrorReason.TIMEOUT, false);
    }
}
