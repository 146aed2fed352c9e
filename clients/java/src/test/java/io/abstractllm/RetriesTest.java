package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.abstractllm.TestServer.Failure;
import io.abstractllm.v1.GenerateRequest;
import io.grpc.InsecureServerCredentials;
import io.grpc.Status.Code;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class RetriesTest {
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

    private static Failure again(Code code) {
        return new Failure(code, "again").reason("OVERLOADED", Map.of()).retryAfterMillis(10);
    }

    /** Every way to ask. */
    private Stream<Function<String, String>> ways() {
        return Stream.of(
                llm::generate,
                prompt -> {
                    try (var pieces = llm.streamText(prompt)) {
                        return pieces.stream().collect(Collectors.joining());
                    }
                },
                prompt -> llm.completeAsync(prompt, Options.NONE).join().text());
    }

    @ParameterizedTest
    @EnumSource(
            value = Code.class,
            names = {"UNAVAILABLE", "RESOURCE_EXHAUSTED"})
    void aFailureWithPushbackIsTriedUpToFiveTimes(Code code) {
        ways().forEach(ask -> {
            server.requests.clear();
            server.fail(4, again(code));
            assertEquals("There", ask.apply("Hi"));
            assertEquals(5, server.requests.size());
        });
        server.requests.clear();
        server.fail(100, again(code));
        var error = assertThrows(OverloadedException.class, () -> llm.generate("Hi"));
        assertEquals(Duration.ofMillis(10), error.retryAfter().orElseThrow());
        assertEquals(5, server.requests.size());
    }

    @Test
    void thePushbackIsWaitedFor() {
        server.fail(
                1,
                new Failure(Code.UNAVAILABLE, "later")
                        .reason("SHUTTING_DOWN", Map.of())
                        .retryAfterMillis(1500));
        long began = System.nanoTime();
        assertEquals("There", llm.generate("Hi"));
        // The policy's own first wait would be at most a quarter of a second.
        assertTrue(System.nanoTime() - began > 1_400_000_000L);
    }

    @ParameterizedTest
    @EnumSource(
            value = Code.class,
            names = {"UNAVAILABLE", "RESOURCE_EXHAUSTED"})
    void aPushbackOfMinusOneEndsTheRetries(Code code) {
        Failure never =
                new Failure(code, "never").reason("QUOTA_EXCEEDED", Map.of()).trailer("grpc-retry-pushback-ms", "-1");
        server.fail(100, never);
        ways().forEach(ask -> {
            var error = assertThrows(RuntimeException.class, () -> ask.apply("Hi"));
            assertTrue(error instanceof QuotaExceededException || error.getCause() instanceof QuotaExceededException);
        });
        assertEquals(3, server.requests.size());
    }

    @Test
    void otherCodesAreNotRetried() {
        server.fail(1, new Failure(Code.INTERNAL, "broken").reason("INTERNAL", Map.of()));
        assertThrows(InternalException.class, () -> llm.generate("Hi"));
        assertEquals(1, server.requests.size());
    }

    @Test
    void aDeadlineBoundsTheRetries() {
        server.fail(
                1,
                new Failure(Code.UNAVAILABLE, "later")
                        .reason("SHUTTING_DOWN", Map.of())
                        .retryAfterMillis(3_600_000));
        Options options = Options.builder().timeout(Duration.ofMillis(500)).build();
        assertThrows(GenerationTimeoutException.class, () -> llm.generate("Hi", options));
    }

    @Test
    void aRequestAsLargeAsTheLimitIsRetried() {
        String prompt = "x".repeat(ConnectionSettings.MESSAGE_LIMIT - 1000);
        server.fail(1, again(Code.UNAVAILABLE));
        assertEquals("There", llm.generate(prompt));
        assertEquals(2, server.requests.size());
        assertEquals(
                prompt.length(),
                ((GenerateRequest) server.requests.get(1)).getPrompt().length());
    }

    @Test
    void severalLargeRequestsAtOnceAreRetried() {
        String prompt = "x".repeat(4_000_000);
        server.fail(6, again(Code.UNAVAILABLE));
        var answers = Stream.generate(() -> llm.completeAsync(prompt, Options.NONE))
                .limit(6)
                .toList();
        answers.stream().map(CompletableFuture::join).forEach(answer -> assertEquals("There", answer.text()));
        assertEquals(12, server.requests.size());
    }

    @Test
    void aStreamThatHasBegunIsNotRetried() {
        server.answer("StreamGenerate", (request, observer) -> {
            observer.onNext(TestServer.started());
            observer.onError(again(Code.UNAVAILABLE).exception());
        });
        try (var events = llm.stream("Hi", Options.NONE)) {
            assertThrows(OverloadedException.class, () -> events.forEach(event -> {}));
        }
        assertEquals(1, server.requests.size());
    }

    @Test
    void aServerThatRestartsIsFoundAgain() throws Exception {
        server.say("There");
        assertEquals("There", llm.generate("Hi"));
        int port = server.port();
        server.close();
        var later = CompletableFuture.supplyAsync(() -> llm.generate("Hi"));
        Thread.sleep(300);
        server = new TestServer(port, InsecureServerCredentials.create());
        server.say("There");
        assertEquals("There", later.get(TestServer.GUARD, TimeUnit.SECONDS));
    }

    /** Takes one connection, reads a call, and ends as a server does that gives up all calls. */
    private static void closeAbruptly(ServerSocket listening) throws IOException {
        try (listening;
                Socket connection = listening.accept()) {
            DataInputStream input = new DataInputStream(connection.getInputStream());
            DataOutputStream output = new DataOutputStream(connection.getOutputStream());
            input.skipNBytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".length());
            output.write(new byte[] {0, 0, 0, 4, 0, 0, 0, 0, 0}); // SETTINGS
            boolean ends = false;
            while (!ends) {
                int length = input.readUnsignedByte() << 16 | input.readUnsignedShort();
                int type = input.readUnsignedByte();
                int flags = input.readUnsignedByte();
                input.skipNBytes(4 + length);
                ends = type == 0 && (flags & 1) == 1; // the DATA frame that ends the request
            }
            output.write(new byte[] {0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}); // GOAWAY, INTERNAL_ERROR
            output.flush();
            connection.shutdownOutput();
            while (input.read() >= 0) {
                // until the client has closed it, too
            }
        }
    }

    @Test
    void aConnectionThatTheServerGivesUpIsTriedAgain() throws Exception {
        for (boolean streams : new boolean[] {false, true}) {
            server.close();
            ServerSocket listening = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
            int port = listening.getLocalPort();
            try (var client = new RemoteLLM("127.0.0.1:" + port)) {
                var answer = CompletableFuture.supplyAsync(() -> {
                    try (var pieces = client.streamText("Hi")) {
                        return streams ? String.join("", pieces) : client.generate("Hi");
                    }
                });
                closeAbruptly(listening);
                server = new TestServer(port, InsecureServerCredentials.create());
                server.say("There");
                assertEquals("There", answer.get(TestServer.GUARD, TimeUnit.SECONDS));
            }
        }
    }

    @Test
    void aConnectionThatTheServerGivesUpIsUnavailableWithoutRetries() throws Exception {
        ServerSocket listening = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
        try (var once = RemoteLLM.builder("127.0.0.1:" + listening.getLocalPort())
                .withoutRetries()
                .build()) {
            var answer = CompletableFuture.supplyAsync(() -> once.generate("Hi"));
            closeAbruptly(listening);
            var error = assertThrows(ExecutionException.class, () -> answer.get(TestServer.GUARD, TimeUnit.SECONDS));
            assertTrue(assertInstanceOf(ProviderUnavailableException.class, error.getCause())
                    .retryable());
        }
    }

    @Test
    void retriesCanBeSwitchedOff() {
        try (var once = RemoteLLM.builder(server.address()).withoutRetries().build()) {
            server.fail(1, again(Code.UNAVAILABLE));
            assertThrows(OverloadedException.class, () -> once.generate("Hi"));
        }
        assertEquals(1, server.requests.size());
    }
}
