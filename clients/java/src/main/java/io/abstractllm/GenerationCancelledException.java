package io.abstractllm;

/** The caller, or an operator, cancelled the request. */
public final class GenerationCancelledException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public GenerationCancelledException(String message) {
        this(new ErrorFacts(message));
    }

    GenerationCancelledException(ErrorFacts facts) {
        super(facts, ErrorReason.CANCELLED, false);
    }
}
