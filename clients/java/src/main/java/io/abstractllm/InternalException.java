package io.abstractllm;

/** A fault of this software; the full text is in the server's log, under the request's id. */
public final class InternalException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public InternalException(String message) {
        this(new ErrorFacts(message));
    }

    InternalException(ErrorFacts facts) {
        super(facts, ErrorReason.INTERNAL, false);
    }
}
