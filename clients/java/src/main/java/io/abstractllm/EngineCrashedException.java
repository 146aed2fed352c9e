package io.abstractllm;

/** The local engine's process ended; it restarts by itself. */
public final class EngineCrashedException extends AbstractLLMException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes an error that did not come from a server, for a program's tests.
     *
     * @param message the error's message
     */
    public EngineCrashedException(String message) {
        this(new ErrorFacts(message));
    }

    EngineCrashedException(ErrorFacts facts) {
        super(facts, ErrorReason.ENGINE_CRASHED, true);
    }
}
