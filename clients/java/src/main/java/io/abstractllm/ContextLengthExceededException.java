package io.abstractllm;

/** Prompt and answer do not fit the model's context window; {@link #limit()} and {@link #requested()} are in tokens. */
public final class ContextLengthExceededException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public ContextLengthExceededException(String message) {
        this(new ErrorFacts(message));
    }

    ContextLengthExceededException(ErrorFacts facts) {
        super(facts, ErrorReason.CONTEXT_LENGTH_EXCEEDED, false);
    }
}
