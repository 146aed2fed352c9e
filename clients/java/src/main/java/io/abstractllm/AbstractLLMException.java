package io.abstractllm;

import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;

/**
 * The root of all failures of this package. Each subclass is one reason that a program can branch on; what is not known
 * is empty.
 */
public abstract class AbstractLLMException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final ErrorFacts facts;
    private final ErrorReason reason;
    private final boolean retryable;

    AbstractLLMException(ErrorFacts facts, ErrorReason reason, boolean retryable) {
        super(facts.message, facts.cause);
        this.facts = facts;
        this.reason = facts.reason == null ? reason : facts.reason;
        this.retryable = facts.retryable == null ? retryable : facts.retryable;
    }

    /**
     * Rebuilds the error that the server raised from what a call of a generated stub throws, as the methods of
     * {@link RemoteLLM} do.
     *
     * @param error what the call threw
     * @return the exception of the error's reason; without one, that of its status code
     */
    public static AbstractLLMException from(StatusRuntimeException error) {
        return Statuses.exception(error.getStatus(), error.getTrailers(), "", error);
    }

    /**
     * What happened, for a program.
     *
     * @return the reason; one without a constant where a newer server sends one that is not known here
     */
    public ErrorReason reason() {
        return reason;
    }

    /**
     * Whether the same request may succeed later, unchanged.
     *
     * @return true if a retry can help
     */
    public boolean retryable() {
        return retryable;
    }

    /**
     * How long to wait before a retry.
     *
     * @return the time, where the server told it
     */
    public Optional<Duration> retryAfter() {
        return Optional.ofNullable(facts.retryAfter);
    }

    /**
     * The provider that failed.
     *
     * @return its name, such as {@code openai}
     */
    public Optional<String> provider() {
        return Optional.ofNullable(facts.provider);
    }

    /**
     * The LLM that was asked.
     *
     * @return its name
     */
    public Optional<String> llm() {
        return Optional.ofNullable(facts.llm);
    }

    /**
     * The model that was asked.
     *
     * @return its name
     */
    public Optional<String> model() {
        return Optional.ofNullable(facts.model);
    }

    /**
     * What the hosted provider answered.
     *
     * @return its HTTP status
     */
    public OptionalInt upstreamStatus() {
        return facts.upstreamStatus == null ? OptionalInt.empty() : OptionalInt.of(facts.upstreamStatus);
    }

    /**
     * Where to find the request in the server's log.
     *
     * @return the request's id
     */
    public Optional<String> requestId() {
        return Optional.ofNullable(facts.requestId);
    }

    /**
     * What of the request is wrong.
     *
     * @return the field's path, such as {@code parameters.temperature}
     */
    public Optional<String> field() {
        return Optional.ofNullable(facts.field);
    }

    /**
     * What the field may hold.
     *
     * @return a number's digits, or words
     */
    public Optional<String> limit() {
        return Optional.ofNullable(facts.limit);
    }

    /**
     * What the field held.
     *
     * @return a number's digits, or words
     */
    public Optional<String> requested() {
        return Optional.ofNullable(facts.requested);
    }

    /**
     * What was generated before the failure.
     *
     * @return a number of tokens
     */
    public OptionalLong outputTokens() {
        return facts.outputTokens == null ? OptionalLong.empty() : OptionalLong.of(facts.outputTokens);
    }

    /**
     * The answer's text that came before the failure.
     *
     * @return the text; empty where nothing came
     */
    public String partialText() {
        return facts.partialText;
    }
}
