package io.abstractllm;

/**
 * The request is malformed: {@link #field()} names the field, {@link #limit()} its limit, {@link #requested()} its
 * value.
 */
public final class InvalidRequestException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public InvalidRequestException(String message) {
        this(new ErrorFacts(message));
    }

    InvalidRequestException(ErrorFacts facts) {
        super(facts, ErrorReason.INVALID_REQUEST, false);
    }
}
