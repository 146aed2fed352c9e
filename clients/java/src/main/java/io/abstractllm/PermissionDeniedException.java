package io.abstractllm;

/** The caller's role does not allow this. */
public final class PermissionDeniedException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public PermissionDeniedException(String message) {
        this(new ErrorFacts(message));
    }

    PermissionDeniedException(ErrorFacts facts) {
        super(facts, ErrorReason.NOT_ALLOWED, false);
    }
}
