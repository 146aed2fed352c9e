package io.abstractllm;

/** The caller's role does not allow this. */
public final class PermissionDeniedException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public PermissionDeniedException(String message) {
        this(new ErrorFacts(message));
    }

    PermissionDeniedException(ErrorFacts facts) {
        super(facts, ErrorReason.NOT_ALLOWED, false);
    }
}
