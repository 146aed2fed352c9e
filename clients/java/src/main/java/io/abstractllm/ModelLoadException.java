package io.abstractllm;

/** A local model cannot be loaded. */
public final class ModelLoadException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public ModelLoadException(String message) {
        this(new ErrorFacts(message));
    }

    ModelLoadException(ErrorFacts facts) {
        super(facts, ErrorReason.MODEL_LOAD_FAILED, false);
    }
}
