package io.abstractllm;

/** The caller, or an operator, cancelled the request. */
public final class GenerationCancelledException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public GenerationCancelledException(String message) {
        this(new ErrorFacts(message));
    }

    GenerationCancelledException(ErrorFacts facts) {
        super(facts, ErrorReason.CANCELLED, false);
    }
}
