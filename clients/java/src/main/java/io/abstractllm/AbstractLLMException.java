package io.abstractllm;

import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;

/**
 * The root of all failures of this package. Each subclass is one reason that a program can branch on; a fact that is
 * not known is empty.
 *
 * <pre>{@code
 * try {
 *     llm.generate("Hi", Options.builder().temperature(5).build());
 * } catch (InvalidRequestException error) {
 *     System.out.println(error.field().orElse("it") + " must be " + error.limit().orElse("something else"));
 * } catch (AbstractLLMException error) {
 *     System.out.println(error.reason() + (error.retryable() ? ", worth a retry" : ""));
 * }
 * }</pre>
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
     * Converts the exception of a generated stub to the one that the methods of {@link RemoteLLM} throw.
     *
     * @param error the exception that the call threw
     * @return the exception of the error's reason; without one, that of its status code
     */
    public static AbstractLLMException from(StatusRuntimeException error) {
        return Statuses.exception(error.getStatus(), error.getTrailers(), "", error);
    }

    /**
     * The reason of the failure, for a program to branch on.
     *
     * @return the reason; it has no constant in {@link ErrorReason} if only newer servers know it
     */
    public ErrorReason reason() {
        return reason;
    }

    /**
     * Tells if the same request may succeed later, unchanged.
     *
     * @return true if a retry can help
     */
    public boolean retryable() {
        return retryable;
    }

    /**
     * The time to wait before a retry.
     *
     * @return the time; empty if the server did not send one
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
     * The LLM that failed.
     *
     * @return its name
     */
    public Optional<String> llm() {
        return Optional.ofNullable(facts.llm);
    }

    /**
     * The model that failed.
     *
     * @return its name
     */
    public Optional<String> model() {
        return Optional.ofNullable(facts.model);
    }

    /**
     * The HTTP status of the hosted provider's answer.
     *
     * @return the status, such as 503
     */
    public OptionalInt upstreamStatus() {
        return facts.upstreamStatus == null ? OptionalInt.empty() : OptionalInt.of(facts.upstreamStatus);
    }

    /**
     * The id of the request, by which it is found in the server's log.
     *
     * @return the id
     */
    public Optional<String> requestId() {
        return Optional.ofNullable(facts.requestId);
    }

    /**
     * The field of the request that is wrong.
     *
     * @return its path, such as {@code parameters.temperature}
     */
    public Optional<String> field() {
        return Optional.ofNullable(facts.field);
    }

    /**
     * The limit that the field's value exceeds.
     *
     * @return a number's digits, or words
     */
    public Optional<String> limit() {
        return Optional.ofNullable(facts.limit);
    }

    /**
     * The value that the field had.
     *
     * @return a number's digits, or words
     */
    public Optional<String> requested() {
        return Optional.ofNullable(facts.requested);
    }

    /**
     * The number of tokens that were generated before the failure.
     *
     * @return the number
     */
    public OptionalLong outputTokens() {
        return facts.outputTokens == null ? OptionalLong.empty() : OptionalLong.of(facts.outputTokens);
    }

    /**
     * The answer's text that came before the failure.
     *
     * @return the text; an empty string if there was none
     */
    public String partialText() {
        return facts.partialText;
    }
}
