package io.abstractllm;

import java.io.Serializable;

/**
 * The reason of a failure, named as in the contract's {@code ErrorReason} without its prefix. A reason that only newer
 * servers know has no constant; it keeps its name.
 *
 * @param name the name, such as {@code RATE_LIMITED}
 */
public record ErrorReason(String name) implements Serializable {
    /** A field is missing, malformed or out of its range. */
    public static final ErrorReason INVALID_REQUEST = new ErrorReason("INVALID_REQUEST");

    /** The LLM cannot honour a parameter that was set. */
    public static final ErrorReason UNSUPPORTED_PARAMETER = new ErrorReason("UNSUPPORTED_PARAMETER");

    /** Prompt and answer do not fit the model's context window. */
    public static final ErrorReason CONTEXT_LENGTH_EXCEEDED = new ErrorReason("CONTEXT_LENGTH_EXCEEDED");

    /** A request or an answer exceeds the limit on one message. */
    public static final ErrorReason MESSAGE_TOO_LARGE = new ErrorReason("MESSAGE_TOO_LARGE");

    /** The server or the LLM lacks what the call asks for. */
    public static final ErrorReason UNSUPPORTED_FEATURE = new ErrorReason("UNSUPPORTED_FEATURE");

    /** The server has no LLM of that name. */
    public static final ErrorReason UNKNOWN_LLM = new ErrorReason("UNKNOWN_LLM");

    /** The model does not exist, or is not one that the LLM's configuration lists. */
    public static final ErrorReason MODEL_NOT_FOUND = new ErrorReason("MODEL_NOT_FOUND");

    /** The caller's credentials are missing or wrong. */
    public static final ErrorReason UNAUTHENTICATED = new ErrorReason("UNAUTHENTICATED");

    /** The caller's role does not allow the call. */
    public static final ErrorReason NOT_ALLOWED = new ErrorReason("NOT_ALLOWED");

    /** The provider's key is missing or refused. */
    public static final ErrorReason PROVIDER_CREDENTIALS = new ErrorReason("PROVIDER_CREDENTIALS");

    /** The configuration is wrong or incomplete. */
    public static final ErrorReason NOT_CONFIGURED = new ErrorReason("NOT_CONFIGURED");

    /** A local model cannot be loaded. */
    public static final ErrorReason MODEL_LOAD_FAILED = new ErrorReason("MODEL_LOAD_FAILED");

    /** A model cannot be removed or unloaded while it is used. */
    public static final ErrorReason MODEL_IN_USE = new ErrorReason("MODEL_IN_USE");

    /** The provider refuses the request's content. */
    public static final ErrorReason CONTENT_BLOCKED = new ErrorReason("CONTENT_BLOCKED");

    /** The provider asks to slow down. */
    public static final ErrorReason RATE_LIMITED = new ErrorReason("RATE_LIMITED");

    /** Too many requests wait already. */
    public static final ErrorReason OVERLOADED = new ErrorReason("OVERLOADED");

    /** The account's quota at the provider is used up. */
    public static final ErrorReason QUOTA_EXCEEDED = new ErrorReason("QUOTA_EXCEEDED");

    /** The provider, or the server, cannot be reached. */
    public static final ErrorReason PROVIDER_UNAVAILABLE = new ErrorReason("PROVIDER_UNAVAILABLE");

    /** The provider's answer cannot be understood. */
    public static final ErrorReason PROVIDER_PROTOCOL = new ErrorReason("PROVIDER_PROTOCOL");

    /** The answer broke off. */
    public static final ErrorReason INCOMPLETE_STREAM = new ErrorReason("INCOMPLETE_STREAM");

    /** The local engine's process ended. */
    public static final ErrorReason ENGINE_CRASHED = new ErrorReason("ENGINE_CRASHED");

    /** The server, or the LLM, is closing. */
    public static final ErrorReason SHUTTING_DOWN = new ErrorReason("SHUTTING_DOWN");

    /** The deadline passed. */
    public static final ErrorReason TIMEOUT = new ErrorReason("TIMEOUT");

    /** The caller, or an operator, cancelled the request. */
    public static final ErrorReason CANCELLED = new ErrorReason("CANCELLED");

    /** The configuration changed since it was read. */
    public static final ErrorReason STALE_CONFIG = new ErrorReason("STALE_CONFIG");

    /** A fault of the software. */
    public static final ErrorReason INTERNAL = new ErrorReason("INTERNAL");

    /** The provider refused, for reasons of its own, what the server's checks accepted. */
    public static final ErrorReason UPSTREAM_REJECTED = new ErrorReason("UPSTREAM_REJECTED");

    @Override
    public String toString() {
        return name;
    }
}
