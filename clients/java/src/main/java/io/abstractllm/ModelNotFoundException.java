package io.abstractllm;

/** The provider, the hub or the cache has no such model. */
public final class ModelNotFoundException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public ModelNotFoundException(String message) {
        this(new ErrorFacts(message));
    }

    ModelNotFoundException(ErrorFacts facts) {
        super(facts, ErrorReason.MODEL_NOT_FOUND, false);
    }
}
