package io.abstractllm;

/** The provider, the hub or the cache has no such model. */
public final class ModelNotFoundException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public ModelNotFoundException(String message) {
        this(new ErrorFacts(message));
    }

    ModelNotFoundException(ErrorFacts facts) {
        super(facts, ErrorReason.MODEL_NOT_FOUND, false);
    }
}
