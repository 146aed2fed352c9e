package io.abstractllm;

/** The request is malformed: {@link #field()} names what, {@link #limit()} and {@link #requested()} say why. */
public final class InvalidRequestException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public InvalidRequestException(String message) {
        this(new ErrorFacts(message));
    }

    InvalidRequestException(ErrorFacts facts) {
        super(facts, ErrorReason.INVALID_REQUEST, false);
    }
}
