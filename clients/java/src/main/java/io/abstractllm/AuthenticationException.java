package io.abstractllm;

/** The caller did not prove who it is. */
public final class AuthenticationException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public AuthenticationException(String message) {
        this(new ErrorFacts(message));
    }

    AuthenticationException(ErrorFacts facts) {
        super(facts, ErrorReason.UNAUTHENTICATED, false);
    }
}
