package io.abstractllm;

/** The caller's credentials are missing or wrong. */
public final class AuthenticationException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public AuthenticationException(String message) {
        this(new ErrorFacts(message));
    }

    AuthenticationException(ErrorFacts facts) {
        super(facts, ErrorReason.UNAUTHENTICATED, false);
    }
}
