package io.abstractllm;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.Status.Code;
import java.util.Map;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Translates a call's gRPC status to one of the client's exceptions. */
final class Statuses {
    static final String DOMAIN = "abstractllm";
    private static final Metadata.Key<byte[]> DETAILS =
            Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

    private static final Map<String, Function<ErrorFacts, AbstractLLMException>> BY_REASON = Map.ofEntries(
            Map.entry("INVALID_REQUEST", InvalidRequestException::new),
            Map.entry("UNSUPPORTED_PARAMETER", UnsupportedParameterException::new),
            Map.entry("CONTEXT_LENGTH_EXCEEDED", ContextLengthExceededException::new),
            Map.entry("MESSAGE_TOO_LARGE", InvalidRequestException::new),
            Map.entry("UNSUPPORTED_FEATURE", UnsupportedFeatureException::new),
            Map.entry("UNKNOWN_LLM", UnknownLLMException::new),
            Map.entry("MODEL_NOT_FOUND", ModelNotFoundException::new),
            Map.entry("UNAUTHENTICATED", AuthenticationException::new),
            Map.entry("NOT_ALLOWED", PermissionDeniedException::new),
            Map.entry("PROVIDER_CREDENTIALS", ProviderCredentialsException::new),
            Map.entry("NOT_CONFIGURED", ConfigurationException::new),
            Map.entry("MODEL_LOAD_FAILED", ModelLoadException::new),
            Map.entry("MODEL_IN_USE", ModelInUseException::new),
            Map.entry("CONTENT_BLOCKED", ContentBlockedException::new),
            Map.entry("RATE_LIMITED", RateLimitedException::new),
            Map.entry("OVERLOADED", OverloadedException::new),
            Map.entry("QUOTA_EXCEEDED", QuotaExceededException::new),
            Map.entry("PROVIDER_UNAVAILABLE", ProviderUnavailableException::new),
            Map.entry("PROVIDER_PROTOCOL", ProviderProtocolException::new),
            Map.entry("INCOMPLETE_STREAM", IncompleteStreamException::new),
            Map.entry("ENGINE_CRASHED", EngineCrashedException::new),
            Map.entry("SHUTTING_DOWN", ServerShuttingDownException::new),
            Map.entry("TIMEOUT", GenerationTimeoutException::new),
            Map.entry("CANCELLED", GenerationCancelledException::new),
            Map.entry("STALE_CONFIG", StaleConfigException::new),
            Map.entry("INTERNAL", InternalException::new),
            Map.entry("UPSTREAM_REJECTED", UpstreamRejectedException::new));

    /** For a status without an ErrorInfo (from gRPC itself, or a proxy), or with a reason that is not known here. */
    private static final Map<Code, Function<ErrorFacts, AbstractLLMException>> BY_CODE = Map.ofEntries(
            Map.entry(Code.INVALID_ARGUMENT, InvalidRequestException::new),
            Map.entry(Code.OUT_OF_RANGE, InvalidRequestException::new),
            Map.entry(Code.NOT_FOUND, UnknownLLMException::new),
            Map.entry(Code.UNIMPLEMENTED, UnsupportedFeatureException::new),
            Map.entry(Code.UNAUTHENTICATED, AuthenticationException::new),
            Map.entry(Code.PERMISSION_DENIED, PermissionDeniedException::new),
            Map.entry(Code.FAILED_PRECONDITION, ConfigurationException::new),
            Map.entry(Code.RESOURCE_EXHAUSTED, OverloadedException::new),
            Map.entry(Code.UNAVAILABLE, ProviderUnavailableException::new),
            Map.entry(Code.DEADLINE_EXCEEDED, GenerationTimeoutException::new),
            Map.entry(Code.CANCELLED, GenerationCancelledException::new),
            Map.entry(Code.ABORTED, StaleConfigException::new));

    /** The message for a size beyond a limit: of gRPC's core and Go, or of Java. */
    private static final Pattern TOO_LARGE = Pattern.compile(
            "larger than max(?: \\(([0-9]+) vs\\. ([0-9]+)\\))?" + "|exceeds maximum size ([0-9]+): ([0-9]+)");

    private Statuses() {}

    /**
     * Converts a status and its details to the exception of the error that the server raised.
     *
     * @param status the status
     * @param trailers the call's trailing metadata; may be null
     * @param partialText the answer's text before the failure
     * @param cause the exception of gRPC; may be null
     * @return the exception of the ErrorInfo's reason; without one, that of the code, retryable only if UNAVAILABLE
     */
    static AbstractLLMException exception(Status status, Metadata trailers, String partialText, Throwable cause) {
        Code code = status.getCode();
        String description = status.getDescription();
        ErrorFacts facts = new ErrorFacts(description == null || description.isEmpty() ? code.name() : description);
        facts.partialText = partialText;
        facts.cause = cause;
        ErrorInfo info = readDetails(trailers, facts);
        Function<ErrorFacts, AbstractLLMException> byCode = BY_CODE.getOrDefault(code, InternalException::new);
        if (info == null) {
            facts.retryable = code == Code.UNAVAILABLE;
            if (code == Code.RESOURCE_EXHAUSTED && isTooLarge(facts)) {
                facts.reason = ErrorReason.MESSAGE_TOO_LARGE;
                return new InvalidRequestException(facts);
            }
            return byCode.apply(facts);
        }
        facts.reason = info.getReason().isEmpty() ? null : new ErrorReason(info.getReason());
        Function<ErrorFacts, AbstractLLMException> byReason = BY_REASON.get(info.getReason());
        if (byReason != null) {
            return byReason.apply(facts);
        }
        facts.retryable = facts.retryAfter != null || code == Code.UNAVAILABLE;
        return byCode.apply(facts);
    }

    /** Returns true, and records both sizes, if the message is gRPC's own for a size beyond a limit, on either side. */
    private static boolean isTooLarge(ErrorFacts facts) {
        Matcher matcher = TOO_LARGE.matcher(facts.message);
        if (!matcher.find()) {
            return false;
        }
        boolean isJava = matcher.group(3) != null;
        facts.requested = isJava ? matcher.group(4) : matcher.group(1);
        facts.limit = isJava ? matcher.group(3) : matcher.group(2);
        return true;
    }

    /**
     * Reads the google.rpc details into the facts. Returns the ErrorInfo of the server's domain; null if there is none.
     */
    private static ErrorInfo readDetails(Metadata trailers, ErrorFacts facts) {
        byte[] encoded = trailers == null ? null : trailers.get(DETAILS);
        if (encoded == null) {
            return null;
        }
        ErrorInfo info = null;
        try {
            for (Any packed : com.google.rpc.Status.parseFrom(encoded).getDetailsList()) {
                if (packed.is(ErrorInfo.class)) {
                    ErrorInfo candidate = packed.unpack(ErrorInfo.class);
                    info = candidate.getDomain().equals(DOMAIN) ? candidate : info;
                } else if (packed.is(RetryInfo.class)) {
                    facts.retryAfter =
                            Responses.duration(packed.unpack(RetryInfo.class).getRetryDelay());
                } else if (packed.is(BadRequest.class)) {
                    BadRequest bad = packed.unpack(BadRequest.class);
                    facts.field = bad.getFieldViolationsCount() == 0
                            ? facts.field
                            : bad.getFieldViolations(0).getField();
                }
            }
        } catch (InvalidProtocolBufferException broken) {
            // A broken detail says nothing; the status code still does.
        }
        if (info != null) {
            readMetadata(info.getMetadataMap(), facts);
        }
        return info;
    }

    private static void readMetadata(Map<String, String> metadata, ErrorFacts facts) {
        facts.requestId = nonEmpty(metadata, "request_id");
        facts.llm = nonEmpty(metadata, "llm");
        facts.provider = nonEmpty(metadata, "provider");
        facts.model = nonEmpty(metadata, "model");
        String field = nonEmpty(metadata, "field");
        facts.field = field == null ? facts.field : field;
        facts.limit = nonEmpty(metadata, "limit");
        facts.requested = nonEmpty(metadata, "requested");
        Long status = number(metadata.get("upstream_status"));
        facts.upstreamStatus = status == null || status > Integer.MAX_VALUE ? null : Integer.valueOf(status.intValue());
        facts.outputTokens = number(metadata.get("output_tokens"));
    }

    private static String nonEmpty(Map<String, String> metadata, String name) {
        String value = metadata.getOrDefault(name, "");
        return value.isEmpty() ? null : value;
    }

    private static Long number(String value) {
        return value != null && value.matches("[0-9]{1,18}") ? Long.valueOf(value) : null;
    }
}
