package io.abstractllm;

/** A model cannot be removed or unloaded while it is used. */
public final class ModelInUseException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public ModelInUseException(String message) {
        this(new ErrorFacts(message));
    }

    ModelInUseException(ErrorFacts facts) {
        super(facts, ErrorReason.MODEL_IN_USE, false);
    }
}
