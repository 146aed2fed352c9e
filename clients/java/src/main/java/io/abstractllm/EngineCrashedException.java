package io.abstractllm;

/** The local engine's process ended; it is started again by itself. */
public final class EngineCrashedException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * An error that did not come from a server, as a test may want one.
     *
     * @param message what happened
     */
    public EngineCrashedException(String message) {
        this(new ErrorFacts(message));
    }

    EngineCrashedException(ErrorFacts facts) {
        super(facts, ErrorReason.ENGINE_CRASHED, true);
    }
}
