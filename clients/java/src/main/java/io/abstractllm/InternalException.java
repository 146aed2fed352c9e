package io.abstractllm;

/** A fault of this software; the full text is in the server's log, under the request's id. */
public final class InternalException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public InternalException(String message) {
        this(new ErrorFacts(message));
    }

    InternalException(ErrorFacts facts) {
        super(facts, ErrorReason.INTERNAL, false);
    }
}
