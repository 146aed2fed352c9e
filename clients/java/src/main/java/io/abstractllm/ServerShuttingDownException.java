package io.abstractllm;

/** The server, or the LLM, is closing; ask another one. */
public final class ServerShuttingDownException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public ServerShuttingDownException(String message) {
        this(new ErrorFacts(message));
    }

    ServerShuttingDownException(ErrorFacts facts) {
        super(facts, ErrorReason.SHUTTING_DOWN, true);
    }
}
