package io.abstractllm;

/** A local model cannot be loaded. */
public final class ModelLoadException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public ModelLoadException(String message) {
        this(new ErrorFacts(message));
    }

    ModelLoadException(ErrorFacts facts) {
        super(facts, ErrorReason.MODEL_LOAD_FAILED, false);
    }
}
