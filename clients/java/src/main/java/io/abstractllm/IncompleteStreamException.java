package io.abstractllm;

/** The answer broke off; {@link #partialText()} holds what came. Whether to ask again is the caller's choice. */
public final class IncompleteStreamException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public IncompleteStreamException(String message) {
        this(new ErrorFacts(message));
    }

    IncompleteStreamException(ErrorFacts facts) {
        super(facts, ErrorReason.INCOMPLETE_STREAM, false);
    }
}
