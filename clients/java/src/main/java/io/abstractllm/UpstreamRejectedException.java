package io.abstractllm;

/** The provider refused, for reasons of its own, what the server's checks accepted; another provider may answer. */
public final class UpstreamRejectedException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public UpstreamRejectedException(String message) {
        this(new ErrorFacts(message));
    }

    UpstreamRejectedException(ErrorFacts facts) {
        super(facts, ErrorReason.UPSTREAM_REJECTED, false);
    }
}
