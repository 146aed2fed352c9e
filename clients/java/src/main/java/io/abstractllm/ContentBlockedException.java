package io.abstractllm;

/** The provider refuses the request's content. */
public final class ContentBlockedException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public ContentBlockedException(String message) {
        this(new ErrorFacts(message));
    }

    ContentBlockedException(ErrorFacts facts) {
        super(facts, ErrorReason.CONTENT_BLOCKED, false);
    }
}
