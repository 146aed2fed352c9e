package io.abstractllm;

/** A model cannot be removed or unloaded while it is used. */
public final class ModelInUseException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public ModelInUseException(String message) {
        this(new ErrorFacts(message));
    }

    ModelInUseException(ErrorFacts facts) {
        super(facts, ErrorReason.MODEL_IN_USE, false);
    }
}
