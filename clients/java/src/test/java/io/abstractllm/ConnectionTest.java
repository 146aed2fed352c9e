package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.abstractllm.v1.GenerateRequest;
import io.abstractllm.v1.GenerationServiceGrpc;
import io.grpc.EquivalentAddressGroup;
import io.grpc.InsecureServerCredentials;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.Status;
import io.grpc.StatusOr;
import io.grpc.StatusRuntimeException;
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
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

class ConnectionTest {
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
        // The second is a part of gRPC that is not on the class path of these tests.
        for (String policy : List.of("fastest", "weighted_round_robin")) {
            var error = assertThrows(
                    ConfigurationException.class, () -> RemoteLLM.builder("x:1").loadBalancing(policy));
            assertEquals("load_balancing", error.field().orElseThrow());
        }
        byte[] nothing = "no certificate".getBytes(StandardCharsets.US_ASCII);
        byte[] broken =
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".getBytes(StandardCharsets.US_ASCII);
        for (byte[] pem : List.of(nothing, broken)) {
            assertWrong("root_certificates", () -> RemoteLLM.builder("x:1").rootCertificates(pem));
            assertWrong("certificate_chain", () -> RemoteLLM.builder("x:1").clientCertificate(pem, pem));
            assertWrong(
                    "private_key", () -> RemoteLLM.builder("x:1").clientCertificate(TlsTest.pem("client.pem"), pem));
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
}
