package io.abstractllm;

/** The server, or the LLM, is closing; ask another one. */
public final class ServerShuttingDownException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public ServerShuttingDownException(String message) {
        this(new ErrorFacts(message));
    }

    ServerShuttingDownException(ErrorFacts facts) {
        super(facts, ErrorReason.SHUTTING_DOWN, true);
    }
}
