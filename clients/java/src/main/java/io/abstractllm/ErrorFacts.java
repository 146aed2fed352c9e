package io.abstractllm;

import java.io.Serializable;
import java.time.Duration;

/** The facts of a failure, from which its exception is made. */
final class ErrorFacts implements Serializable {
    private static final long serialVersionUID = 1L;

    final String message;
    ErrorReason reason;
    Boolean retryable;
    Duration retryAfter;
    String provider;
    String llm;
    String model;
    Integer upstreamStatus;
    String requestId;
    String field;
    String limit;
    String requested;
    Long outputTokens;
    String partialText = "";
    Throwable cause;

    ErrorFacts(String message) {
        this.message = message;
    }

    /** The facts of a value that breaks a rule. */
    static ErrorFacts ofField(String field, String rule, Object limit, Object requested) {
        String shown = String.valueOf(requested);
        shown = shown.length() <= 80 ? shown : shown.substring(0, 77) + "...";
        ErrorFacts facts = new ErrorFacts(field + ": " + rule + ", got " + shown);
        facts.field = field;
        facts.limit = limit == null ? null : limit.toString();
        facts.requested = shown;
        return facts;
    }
}
