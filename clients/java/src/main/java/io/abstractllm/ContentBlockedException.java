package io.abstractllm;

/** The provider refuses the request's content. */
public final class ContentBlockedException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public ContentBlockedException(String message) {
        this(new ErrorFacts(message));
    }

    ContentBlockedException(ErrorFacts facts) {
        super(facts, ErrorReason.CONTENT_BLOCKED, false);
    }
}
