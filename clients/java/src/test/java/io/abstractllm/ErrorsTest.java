package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.rpc.ErrorInfo;
import io.abstractllm.TestServer.Failure;
import io.grpc.Metadata;
import io.grpc.Status.Code;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class ErrorsTest {
    private static final Map<String, String> FACTS = Map.of(
            "request_id",
            "r-1",
            "llm",
            "gpt",
            "provider",
            "openai",
            "model",
            "m",
            "upstream_status",
            "418",
            "field",
            "parameters.x",
            "limit",
            "2",
            "requested",
            "much",
            "output_tokens",
            "7");

    private TestServer server;
    private RemoteLLM llm;

    @BeforeEach
    void start() throws Exception {
        server = new TestServer();
        llm = new RemoteLLM(server.address());
    }

    @AfterEach
    void stop() {
        llm.close();
        server.close();
    }

    private AbstractLLMException errorOf(Failure failure) {
        server.fail(1, failure.trailer("grpc-retry-pushback-ms", "-1"));
        return assertThrows(AbstractLLMException.class, () -> llm.generate("Hi"));
    }

    @ParameterizedTest
    @CsvSource({
        "INVALID_REQUEST, INVALID_ARGUMENT, InvalidRequest, false",
        "UNSUPPORTED_PARAMETER, INVALID_ARGUMENT, UnsupportedParameter, false",
        "CONTEXT_LENGTH_EXCEEDED, INVALID_ARGUMENT, ContextLengthExceeded, false",
        "MESSAGE_TOO_LARGE, RESOURCE_EXHAUSTED, InvalidRequest, false",
        "UNSUPPORTED_FEATURE, UNIMPLEMENTED, UnsupportedFeature, false",
        "UNKNOWN_LLM, NOT_FOUND, UnknownLLM, false",
        "MODEL_NOT_FOUND, NOT_FOUND, ModelNotFound, false",
        "UNAUTHENTICATED, UNAUTHENTICATED, Authentication, false",
        "NOT_ALLOWED, PERMISSION_DENIED, PermissionDenied, false",
        "PROVIDER_CREDENTIALS, FAILED_PRECONDITION, ProviderCredentials, false",
        "NOT_CONFIGURED, FAILED_PRECONDITION, Configuration, false",
        "MODEL_LOAD_FAILED, FAILED_PRECONDITION, ModelLoad, false",
        "MODEL_IN_USE, FAILED_PRECONDITION, ModelInUse, false",
        "CONTENT_BLOCKED, FAILED_PRECONDITION, ContentBlocked, false",
        "RATE_LIMITED, RESOURCE_EXHAUSTED, RateLimited, true",
        "OVERLOADED, RESOURCE_EXHAUSTED, Overloaded, true",
        "QUOTA_EXCEEDED, RESOURCE_EXHAUSTED, QuotaExceeded, false",
        "PROVIDER_UNAVAILABLE, UNAVAILABLE, ProviderUnavailable, true",
        "PROVIDER_PROTOCOL, UNAVAILABLE, ProviderProtocol, true",
        "INCOMPLETE_STREAM, UNAVAILABLE, IncompleteStream, false",
        "ENGINE_CRASHED, UNAVAILABLE, EngineCrashed, true",
        "SHUTTING_DOWN, UNAVAILABLE, ServerShuttingDown, true",
        "TIMEOUT, DEADLINE_EXCEEDED, GenerationTimeout, false",
        "CANCELLED, CANCELLED, GenerationCancelled, false",
        "STALE_CONFIG, ABORTED, StaleConfig, false",
        "INTERNAL, INTERNAL, Internal, false",
        "UPSTREAM_REJECTED, FAILED_PRECONDITION, UpstreamRejected, false",
    })
    void everyReasonIsAnExceptionOfItsOwn(String reason, Code code, String kind, boolean retryable) {
        AbstractLLMException error = errorOf(new Failure(code, "it failed").reason(reason, FACTS));
        assertEquals(kind + "Exception", error.getClass().getSimpleName());
        assertEquals(new ErrorReason(reason), error.reason());
        assertEquals(retryable, error.retryable());
        assertEquals("it failed", error.getMessage());
        assertEquals(Optional.of("r-1"), error.requestId());
        assertEquals(Optional.of("gpt"), error.llm());
        assertEquals(Optional.of("openai"), error.provider());
        assertEquals(Optional.of("m"), error.model());
        assertEquals(OptionalInt.of(418), error.upstreamStatus());
        assertEquals(Optional.of("parameters.x"), error.field());
        assertEquals(Optional.of("2"), error.limit());
        assertEquals(Optional.of("much"), error.requested());
        assertEquals(OptionalLong.of(7), error.outputTokens());
        assertEquals("", error.partialText());
    }

    @Test
    void everyReasonOfTheContractIsKnown() throws Exception {
        for (var value : io.abstractllm.v1.ErrorReason.getDescriptor().getValues()) {
            if (value.getNumber() != 0) {
                String name = EnumNames.name(io.abstractllm.v1.ErrorReason.getDescriptor(), value.getNumber());
                assertEquals(name, ErrorReason.class.getField(name).get(null).toString());
                var error = errorOf(new Failure(Code.UNKNOWN, "").reason(name, Map.of()));
                assertEquals(name, error.reason().name());
                assertTrue(name.equals("INTERNAL") || !(error instanceof InternalException), name);
            }
        }
    }

    @Test
    void aRetryAndAFieldAreReadFromTheirDetails() {
        Failure failure = new Failure(Code.INVALID_ARGUMENT, "no")
                .detail(com.google.rpc.Help.getDefaultInstance())
                .detail(ErrorInfo.newBuilder()
                        .setDomain("elsewhere")
                        .setReason("INTERNAL")
                        .build())
                .reason("INVALID_REQUEST", Map.of())
                .field("tools[0].name")
                .detail(com.google.rpc.RetryInfo.newBuilder()
                        .setRetryDelay(com.google.protobuf.Duration.newBuilder().setNanos(1_500_000))
                        .build());
        AbstractLLMException error = errorOf(failure);
        assertInstanceOf(InvalidRequestException.class, error);
        assertEquals(Optional.of("tools[0].name"), error.field());
        assertEquals(Optional.of(Duration.ofNanos(1_500_000)), error.retryAfter());
        assertEquals(Optional.empty(), error.limit());
        assertEquals(OptionalInt.empty(), error.upstreamStatus());
    }

    @ParameterizedTest
    @EnumSource(value = Code.class, mode = EnumSource.Mode.EXCLUDE, names = "OK")
    void aStatusWithoutDetailsIsJudgedByItsCode(Code code) {
        AbstractLLMException error = Statuses.exception(code.toStatus(), null, "", null);
        String wanted =
                switch (code) {
                    case INVALID_ARGUMENT, OUT_OF_RANGE -> "InvalidRequestException";
                    case NOT_FOUND -> "UnknownLLMException";
                    case UNIMPLEMENTED -> "UnsupportedFeatureException";
                    case UNAUTHENTICATED -> "AuthenticationException";
                    case PERMISSION_DENIED -> "PermissionDeniedException";
                    case FAILED_PRECONDITION -> "ConfigurationException";
                    case RESOURCE_EXHAUSTED -> "OverloadedException";
                    case UNAVAILABLE -> "ProviderUnavailableException";
                    case DEADLINE_EXCEEDED -> "GenerationTimeoutException";
                    case CANCELLED -> "GenerationCancelledException";
                    case ABORTED -> "StaleConfigException";
                    default -> "InternalException";
                };
        assertEquals(wanted, error.getClass().getSimpleName());
        assertEquals(code == Code.UNAVAILABLE, error.retryable());
        assertEquals(code.name(), error.getMessage());
    }

    @Test
    void anUnknownReasonKeepsItsNameAndIsJudgedByTheCode() {
        Failure failure = new Failure(Code.RESOURCE_EXHAUSTED, "new").reason("BRAND_NEW", Map.of("llm", "gpt"));
        AbstractLLMException error = errorOf(failure);
        assertInstanceOf(OverloadedException.class, error);
        assertEquals("BRAND_NEW", error.reason().name());
        assertEquals(Optional.of("gpt"), error.llm());
        assertEquals(false, error.retryable());
        error = errorOf(
                new Failure(Code.INTERNAL, "new").reason("BRAND_NEW", Map.of()).retryAfterMillis(5));
        assertInstanceOf(InternalException.class, error);
        assertTrue(error.retryable());
    }

    @Test
    void brokenDetailsLeaveTheCode() {
        Failure failure = new Failure(Code.PERMISSION_DENIED, "no");
        var packed = com.google.rpc.Status.newBuilder()
                .addDetails(Any.newBuilder()
                        .setTypeUrl("type.googleapis.com/google.rpc.ErrorInfo")
                        .setValue(ByteString.copyFrom(new byte[] {-1})))
                .build();
        for (byte[] encoded : new byte[][] {{-1, -1}, {}, packed.toByteArray()}) {
            Metadata trailers = failure.exception(encoded).getTrailers();
            AbstractLLMException error = Statuses.exception(failure.exception().getStatus(), trailers, "", null);
            assertInstanceOf(PermissionDeniedException.class, error);
            assertEquals(Optional.empty(), error.requestId());
        }
    }

    @Test
    void factsThatAreNoNumbersAreLeftOut() {
        AbstractLLMException error = errorOf(new Failure(Code.INTERNAL, "")
                .reason("INTERNAL", Map.of("upstream_status", "teapot", "output_tokens", "-1", "limit", "")));
        assertEquals(OptionalInt.empty(), error.upstreamStatus());
        assertEquals(OptionalLong.empty(), error.outputTokens());
        assertEquals(Optional.empty(), error.limit());
    }

    @ParameterizedTest
    @CsvSource({
        "Received message larger than max (9 vs. 4)",
        "gRPC message exceeds maximum size 4: 9",
    })
    void grpcsOwnWordsForTooLargeAreThatReason(String words) {
        var status = io.grpc.Status.RESOURCE_EXHAUSTED.withDescription(words);
        AbstractLLMException error = Statuses.exception(status, null, "", null);
        assertInstanceOf(InvalidRequestException.class, error);
        assertEquals(ErrorReason.MESSAGE_TOO_LARGE, error.reason());
        assertEquals(false, error.retryable());
        assertEquals(Optional.of("4"), error.limit());
        assertEquals(Optional.of("9"), error.requested());
    }

    @Test
    void aStreamThatBreaksKeepsTheTextThatCame() {
        server.answer("StreamGenerate", (request, observer) -> {
            observer.onNext(TestServer.started());
            observer.onNext(TestServer.delta("half an "));
            observer.onNext(TestServer.delta("answer"));
            observer.onError(new Failure(Code.UNAVAILABLE, "broke")
                    .reason("PROVIDER_UNAVAILABLE", Map.of())
                    .exception());
        });
        try (var pieces = llm.streamText("Hi")) {
            var values = pieces.iterator();
            assertEquals("half an ", values.next());
            assertEquals("answer", values.next());
            var error = assertThrows(ProviderUnavailableException.class, values::hasNext);
            assertEquals("half an answer", error.partialText());
        }
        assertEquals(1, server.requests.size());
    }

    @Test
    void aStreamWithoutAnEndIsIncomplete() {
        server.answer("StreamGenerate", TestServer.started(), TestServer.delta("half"));
        try (var events = llm.stream("Hi", Options.NONE)) {
            var error = assertThrows(IncompleteStreamException.class, () -> events.forEach(event -> {}));
            assertEquals("half", error.partialText());
            assertEquals(ErrorReason.INCOMPLETE_STREAM, error.reason());
        }
    }

    @Test
    void aProgramCanMakeOneForItsOwnTestsAndSendItOn() throws Exception {
        RateLimitedException error = new RateLimitedException("slow down");
        assertEquals(ErrorReason.RATE_LIMITED, error.reason());
        assertTrue(error.retryable());
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        new ObjectOutputStream(bytes).writeObject(error);
        var copy = (RateLimitedException)
                new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray())).readObject();
        assertEquals(error.reason(), copy.reason());
        assertEquals(Optional.empty(), copy.requestId());
    }
}
