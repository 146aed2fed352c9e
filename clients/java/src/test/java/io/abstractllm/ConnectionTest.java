package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.abstractllm.v1.GenerateRequest;
import io.abstractllm.v1.GenerateResponse;
import io.abstractllm.v1.GenerationServiceGrpc;
import io.grpc.EquivalentAddressGroup;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.ServerCredentials;
import io.grpc.Status;
import io.grpc.StatusOr;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsServerCredentials;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.netty.shaded.io.netty.channel.EventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.MultiThreadIoEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.epoll.Epoll;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollIoHandler;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollServerDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.testing.TlsTesting;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.propagation.ContextPropagators;
import io.opentelemetry.instrumentation.grpc.v1_6.GrpcTelemetry;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

class ConnectionTest {
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
    void theStubsAndOtherServicesWorkOnTheClientsChannel() throws Exception {
        HealthStatusManager health = new HealthStatusManager();
        NettyServerBuilder builder = NettyServerBuilder.forAddress(
                new InetSocketAddress("127.0.0.1", 0), InsecureServerCredentials.create());
        try (TestServer server = new TestServer(builder.addService(health.getHealthService()))) {
            server.fail(
                    1,
                    new TestServer.Failure(Status.Code.NOT_FOUND, "who?").reason("UNKNOWN_LLM", Map.of("llm", "gpt")));
            try (var llm = new RemoteLLM(server.address())) {
                var stub = GenerationServiceGrpc.newBlockingStub(llm.channel());
                var refused = assertThrows(
                        StatusRuntimeException.class, () -> stub.generate(GenerateRequest.getDefaultInstance()));
                var error = assertInstanceOf(UnknownLLMException.class, AbstractLLMException.from(refused));
                assertEquals("gpt", error.llm().orElseThrow());
                var answer = HealthGrpc.newBlockingStub(llm.channel()).check(HealthCheckRequest.getDefaultInstance());
                assertEquals(HealthCheckResponse.ServingStatus.SERVING, answer.getStatus());
            }
        }
    }

    @Test
    void whatCannotConnectIsRefusedAtOnce() {
        for (String address : List.of("", "http://localhost:50051", "https://x", "nosuchscheme://x y")) {
            var error = assertThrows(ConfigurationException.class, () -> new RemoteLLM(address).close());
            assertEquals("address", error.field().orElseThrow());
        }
        for (String token : List.of("", "two\nlines", "schl\u00fcssel")) {
            var error = assertThrows(
                    ConfigurationException.class, () -> RemoteLLM.builder("x:1").token(token));
            assertEquals("token", error.field().orElseThrow());
            assertFalse(!token.isEmpty() && error.getMessage().contains(token));
        }
        assertThrows(
                ConfigurationException.class, () -> RemoteLLM.builder("x:1").messageLimit(0));
        byte[] nothing = "no certificate".getBytes(StandardCharsets.US_ASCII);
        byte[] broken =
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".getBytes(StandardCharsets.US_ASCII);
        for (byte[] pem : List.of(nothing, broken)) {
            assertWrong("root_certificates", () -> RemoteLLM.builder("x:1").rootCertificates(pem));
            assertWrong("certificate_chain", () -> RemoteLLM.builder("x:1").clientCertificate(pem, pem));
            assertWrong("private_key", () -> RemoteLLM.builder("x:1").clientCertificate(pem("client.pem"), pem));
        }
    }

    private static void assertWrong(String field, Executable act) {
        var error = assertThrows(ConfigurationException.class, act);
        assertEquals(field, error.field().orElseThrow());
        assertTrue(error.getMessage().contains("PEM"));
    }

    @Test
    void aUnixSocketIsAnAddress(@TempDir Path folder) throws Exception {
        assumeTrue(Epoll.isAvailable(), "unix sockets need Linux");
        EventLoopGroup group = new MultiThreadIoEventLoopGroup(1, EpollIoHandler.newFactory());
        Path socket = folder.resolve("llm.sock");
        NettyServerBuilder builder = NettyServerBuilder.forAddress(new DomainSocketAddress(socket.toFile()))
                .channelType(EpollServerDomainSocketChannel.class)
                .bossEventLoopGroup(group)
                .workerEventLoopGroup(group);
        try (TestServer server = new TestServer(builder)) {
            server.say("There");
            for (String scheme : List.of("unix:", "unix://")) {
                try (var llm = new RemoteLLM(scheme + socket)) {
                    assertEquals("There", llm.generate("Hi"));
                }
            }
        } finally {
            group.shutdownGracefully();
        }
    }

    private static byte[] pem(String name) throws IOException {
        try (var stream = TlsTesting.loadCert(name)) {
            return stream.readAllBytes();
        }
    }

    /** The certificates at hand are of a name that is not this machine's. */
    private static RemoteLLMBuilder ofTheName(String address) {
        return RemoteLLM.builder(address)
                .withoutRetries()
                .channel(builder -> builder.overrideAuthority("foo.test.google.fr"));
    }

    @Test
    void tlsWithOwnRoots() throws Exception {
        ServerCredentials credentials =
                TlsServerCredentials.create(TlsTesting.loadCert("server1.pem"), TlsTesting.loadCert("server1.key"));
        try (TestServer server = new TestServer(0, credentials)) {
            server.say("There");
            try (var llm = ofTheName(server.address())
                    .rootCertificates(pem("ca.pem"))
                    .token("t")
                    .build()) {
                assertEquals("There", llm.generate("Hi"));
            }
            for (RemoteLLMBuilder distrusting : List.of(
                    ofTheName(server.address()),
                    ofTheName(server.address()).tls(),
                    ofTheName(server.address()).rootCertificates(pem("badserver.pem")))) {
                try (var llm = distrusting.build()) {
                    assertThrows(ProviderUnavailableException.class, () -> llm.generate("Hi"));
                }
            }
            assertEquals(1, server.requests.size());
        }
    }

    @Test
    void mutualTls() throws Exception {
        ServerCredentials credentials = TlsServerCredentials.newBuilder()
                .keyManager(TlsTesting.loadCert("server1.pem"), TlsTesting.loadCert("server1.key"))
                .trustManager(TlsTesting.loadCert("ca.pem"))
                .clientAuth(TlsServerCredentials.ClientAuth.REQUIRE)
                .build();
        try (TestServer server = new TestServer(0, credentials)) {
            server.say("There");
            try (var llm = ofTheName(server.address())
                    .rootCertificates(pem("ca.pem"))
                    .clientCertificate(pem("client.pem"), pem("client.key"))
                    .build()) {
                assertEquals("There", llm.generate("Hi"));
            }
            try (var llm =
                    ofTheName(server.address()).rootCertificates(pem("ca.pem")).build()) {
                assertThrows(ProviderUnavailableException.class, () -> llm.generate("Hi"));
            }
            assertEquals(1, server.requests.size());
        }
    }

    @Test
    void aRequestBeyondTheLimitIsRefusedBeforeItIsSent() throws Exception {
        try (TestServer server = new TestServer()) {
            server.say("There");
            try (var llm = new RemoteLLM(server.address());
                    var small = RemoteLLM.builder(server.address())
                            .messageLimit(100)
                            .build()) {
                assertEquals("There", llm.generate("x".repeat(ConnectionSettings.MESSAGE_LIMIT - 10)));
                String prompt = "x".repeat(ConnectionSettings.MESSAGE_LIMIT);
                for (Runnable ask : List.<Runnable>of(
                        () -> llm.generate(prompt),
                        () -> llm.streamText(prompt).close(),
                        () -> llm.countTokens(prompt, Options.NONE))) {
                    var error = assertThrows(InvalidRequestException.class, ask::run);
                    assertEquals(ErrorReason.MESSAGE_TOO_LARGE, error.reason());
                    assertEquals("16777216", error.limit().orElseThrow());
                    assertEquals("16777221", error.requested().orElseThrow());
                    assertEquals("request", error.field().orElseThrow());
                }
                assertThrows(InvalidRequestException.class, () -> small.generate("x".repeat(100)));
            }
            assertEquals(1, server.requests.size());
        }
    }

    @Test
    void anAnswerBeyondTheLimitIsRefusedByName() throws Exception {
        try (TestServer server = new TestServer()) {
            server.answer(
                    "Generate",
                    GenerateResponse.newBuilder()
                            .setText("x".repeat(ConnectionSettings.MESSAGE_LIMIT))
                            .build());
            try (var llm = new RemoteLLM(server.address())) {
                var error = assertThrows(InvalidRequestException.class, () -> llm.generate("Hi"));
                assertEquals(ErrorReason.MESSAGE_TOO_LARGE, error.reason());
            }
            assertEquals(1, server.requests.size());
        }
    }

    /** Resolves any name to both servers. */
    private static NameResolverProvider resolving(int... ports) {
        return new NameResolverProvider() {
            @Override
            protected boolean isAvailable() {
                return true;
            }

            @Override
            protected int priority() {
                return 5;
            }

            @Override
            public String getDefaultScheme() {
                return "twofold";
            }

            @Override
            public NameResolver newNameResolver(URI target, NameResolver.Args args) {
                return new NameResolver() {
                    @Override
                    public String getServiceAuthority() {
                        return "both";
                    }

                    @Override
                    public void start(Listener2 listener) {
                        List<EquivalentAddressGroup> addresses = java.util.Arrays.stream(ports)
                                .mapToObj(port -> new EquivalentAddressGroup(new InetSocketAddress("127.0.0.1", port)))
                                .toList();
                        listener.onResult(ResolutionResult.newBuilder()
                                .setAddressesOrError(StatusOr.fromValue(addresses))
                                .build());
                    }

                    @Override
                    public void shutdown() {}
                };
            }
        };
    }

    @Test
    void callsAreSpreadOverAllAddressesOfAName() throws Exception {
        try (TestServer one = new TestServer();
                TestServer other = new TestServer()) {
            one.say("There");
            other.say("There");
            var resolver = resolving(one.port(), other.port());
            io.grpc.NameResolverRegistry.getDefaultRegistry().register(resolver);
            try (var llm = new RemoteLLM("twofold:///both")) {
                for (int call = 0; call < 20; call++) {
                    llm.generate("Hi");
                }
                assertEquals(20, one.requests.size() + other.requests.size());
                assertTrue(Math.min(one.requests.size(), other.requests.size()) >= 5);
                one.stop();
                for (int call = 0; call < 5; call++) {
                    assertEquals("There", llm.generate("Hi"));
                }
            } finally {
                io.grpc.NameResolverRegistry.getDefaultRegistry().deregister(resolver);
            }
        }
    }

    @Test
    void aNameOfTheDnsIsAnAddress() throws Exception {
        try (TestServer server = new TestServer()) {
            server.say("There");
            try (var llm = new RemoteLLM("dns:///localhost:" + server.port())) {
                assertEquals("There", llm.generate("Hi"));
            }
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
