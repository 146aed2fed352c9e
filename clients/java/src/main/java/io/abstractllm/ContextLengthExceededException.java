package io.abstractllm;

/** Prompt and answer do not fit the model's context window; {@link #limit()} and {@link #requested()} are in tokens. */
public final class ContextLengthExceededException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public ContextLengthExceededException(String message) {
        this(new ErrorFacts(message));
    }

    ContextLengthExceededException(ErrorFacts facts) {
        super(facts, ErrorReason.CONTEXT_LENGTH_EXCEEDED, false);
    }
}
