package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.abstractllm.v1.GenerateRequest;
import io.abstractllm.v1.GenerationServiceGrpc;
import io.grpc.Metadata;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.propagation.ContextPropagators;
import io.opentelemetry.instrumentation.grpc.v1_6.GrpcTelemetry;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

class MetadataTest {
    private static String header(TestServer server, int call, String name) {
        return server.metadata.get(call).get(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER));
    }

    @Test
    void theTokenGoesWithEveryCallAndIsNeverShown() throws Exception {
        try (TestServer server = new TestServer()) {
            server.say("There");
            server.answer("ListLlms", io.abstractllm.v1.ListLlmsResponse.getDefaultInstance());
            try (var llm = RemoteLLM.builder(server.address())
                    .token("s3cret")
                    .llm("gpt")
                    .build()) {
                llm.generate("Hi");
                llm.listLlms();
                GenerationServiceGrpc.newBlockingStub(llm.channel())
                        .generate(GenerateRequest.newBuilder().setPrompt("Hi").build());
                assertEquals("RemoteLLM(" + server.address() + ", gpt)", llm.toString());
            }
            for (int call = 0; call < 3; call++) {
                assertEquals("Bearer s3cret", header(server, call, "authorization"));
            }
            try (var llm = new RemoteLLM(server.address())) {
                llm.generate("Hi");
            }
            assertNull(header(server, 3, "authorization"));
        }
    }

    @Test
    void theCallersTraceContextGoesWithTheCall() throws Exception {
        String parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        try (TestServer server = new TestServer()) {
            server.say("There");
            Options common = Options.builder()
                    .metadata(() -> Map.of("tracestate", "vendor=value", "x-kind", "default"))
                    .build();
            Options call = Options.builder()
                    .metadata(() -> Map.of("traceparent", parent, "x-kind", "own"))
                    .build();
            try (var llm = RemoteLLM.builder(server.address()).defaults(common).build()) {
                llm.generate("Hi", call);
                assertEquals(parent, header(server, 0, "traceparent"));
                assertEquals("vendor=value", header(server, 0, "tracestate"));
                assertEquals("own", header(server, 0, "x-kind"));
                llm.generate("Hi");
                assertNull(header(server, 1, "traceparent"));
                assertEquals("default", header(server, 1, "x-kind"));
            }
        }
    }

    @Test
    void metadataThatCannotBeSentIsRefused() {
        for (Map<String, String> metadata : Stream.of("Upper", "a b", "x-bin", "")
                .map(name -> Map.of(name, "value"))
                .toList()) {
            assertRefused(metadata);
        }
        assertRefused(Map.of("x-other", "two\nlines"));
    }

    private static void assertRefused(Map<String, String> metadata) {
        Options options = Options.builder().metadata(() -> metadata).build();
        try (var llm = new RemoteLLM("127.0.0.1:1")) {
            var error = assertThrows(ConfigurationException.class, () -> llm.generate("Hi", options));
            assertEquals("metadata", error.field().orElseThrow());
        }
    }

    @Test
    void openTelemetrysInterceptorTracesTheCallAsPartOfTheCallersSpan() throws Exception {
        try (TestServer server = new TestServer();
                SdkTracerProvider tracers = SdkTracerProvider.builder().build()) {
            server.say("There");
            var telemetry = OpenTelemetrySdk.builder()
                    .setTracerProvider(tracers)
                    .setPropagators(ContextPropagators.create(W3CTraceContextPropagator.getInstance()))
                    .build();
            var interceptor = GrpcTelemetry.create(telemetry).createClientInterceptor();
            try (var llm = RemoteLLM.builder(server.address())
                    .channel(builder -> builder.intercept(interceptor))
                    .build()) {
                Span span = telemetry
                        .getTracer("test")
                        .spanBuilder("a caller's work")
                        .startSpan();
                Context.current()
                        .with(span)
                        .wrap(() -> {
                            llm.generate("Hi");
                            llm.streamText("Hi").forEach(piece -> {});
                        })
                        .run();
                span.end();
                String trace = span.getSpanContext().getTraceId();
                assertEquals(trace, header(server, 0, "traceparent").split("-")[1]);
                assertEquals(trace, header(server, 1, "traceparent").split("-")[1]);
            }
        }
    }
}
