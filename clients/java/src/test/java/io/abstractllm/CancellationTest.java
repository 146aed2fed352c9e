package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall;
import io.grpc.MethodDescriptor;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Flow;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class CancellationTest {
    private TestServer server;
    private RemoteLLM llm;

    @BeforeEach
    void start() throws Exception {
        server = new TestServer();
        server.goOnForEver();
        llm = new RemoteLLM(server.address());
    }

    @AfterEach
    void stop() {
        llm.close();
        server.close();
    }

    private void assertCancelledAtTheServer() throws InterruptedException {
        assertTrue(server.cancelled.await(TestServer.GUARD, TimeUnit.SECONDS));
    }

    private void awaitRequest() throws InterruptedException {
        while (server.requests.isEmpty()) {
            Thread.sleep(5);
        }
    }

    @Test
    void leavingAStreamCancelsTheCall() throws Exception {
        int pieces = 0;
        try (var stream = llm.streamText("Hi")) {
            for (String piece : stream) {
                assertEquals("on ", piece);
                if (++pieces == 5) {
                    break;
                }
            }
        }
        assertCancelledAtTheServer();
    }

    @Test
    void closingAJavaStreamCancelsTheCall() throws Exception {
        try (var pieces = llm.streamText("Hi").stream()) {
            assertEquals(List.of("on ", "on "), pieces.limit(2).toList());
        }
        assertCancelledAtTheServer();
    }

    @Test
    void aStreamThatIsNeverReadSendsNothing() {
        llm.streamText("Hi").close();
        server.say("There");
        assertEquals("There", llm.generate("Hi"));
        assertEquals(1, server.requests.size());
    }

    @Test
    void aStreamIsReadOnlyOnce() {
        try (var stream = llm.streamText("Hi")) {
            stream.iterator();
            assertThrows(IllegalStateException.class, stream::iterator);
        }
    }

    @Test
    void aClosedStreamSaysThatItIsNotWhole() {
        var stream = llm.streamText("Hi");
        var pieces = stream.iterator();
        assertEquals("on ", pieces.next());
        stream.close();
        var error = assertThrows(GenerationCancelledException.class, pieces::hasNext);
        assertEquals("on ", error.partialText());
        assertFalse(pieces.hasNext());
    }

    @Test
    void anotherThreadMayCloseAStreamThatWaits() throws Exception {
        server.answer("StreamGenerate", (request, observer) -> {});
        var stream = llm.stream("Hi", Options.NONE);
        var waiting = CompletableFuture.supplyAsync(() -> stream.iterator().hasNext());
        awaitRequest();
        stream.close();
        var error = assertThrows(ExecutionException.class, () -> waiting.get(TestServer.GUARD, TimeUnit.SECONDS));
        assertInstanceOf(GenerationCancelledException.class, error.getCause());
        assertCancelledAtTheServer();
    }

    @Test
    void interruptingTheThreadCancelsItsCall() throws Exception {
        for (Runnable ask : List.<Runnable>of(() -> llm.generate("Hi"), () -> {
            try (var stream = llm.stream("Hi", Options.NONE)) {
                stream.forEach(event -> {});
            }
        })) {
            server.requests.clear();
            CompletableFuture<Throwable> raised = new CompletableFuture<>();
            AtomicBoolean stillSet = new AtomicBoolean();
            Thread thread = new Thread(() -> {
                try {
                    ask.run();
                } catch (AbstractLLMException error) {
                    stillSet.set(Thread.currentThread().isInterrupted());
                    raised.complete(error);
                }
            });
            thread.start();
            awaitRequest();
            thread.interrupt();
            assertInstanceOf(GenerationCancelledException.class, raised.get(TestServer.GUARD, TimeUnit.SECONDS));
            assertTrue(stillSet.get());
            assertCancelledAtTheServer();
        }
    }

    @Test
    void cancellingTheFutureCancelsTheCall() throws Exception {
        var future = llm.completeAsync("Hi", Options.NONE);
        awaitRequest();
        future.cancel(true);
        assertThrows(CancellationException.class, future::join);
        assertCancelledAtTheServer();
    }

    @Test
    void closingTheClientEndsItsCalls() throws Exception {
        var stream = llm.streamText("Hi").iterator();
        assertEquals("on ", stream.next());
        var future = llm.completeAsync("Hi", Options.NONE);
        llm.close();
        var error = assertThrows(GenerationCancelledException.class, () -> {
            while (stream.hasNext()) {
                stream.next();
            }
        });
        assertEquals("the client is closed", error.getMessage());
        assertTrue(error.partialText().startsWith("on "));
        var failed = assertThrows(ExecutionException.class, () -> future.get(TestServer.GUARD, TimeUnit.SECONDS));
        assertInstanceOf(GenerationCancelledException.class, failed.getCause());
        assertThrows(GenerationCancelledException.class, () -> llm.generate("Hi"));
    }

    @Test
    void aDeadlineEndsTheCallAndKeepsTheTextThatCame() throws Exception {
        Options soon = Options.builder().timeout(Duration.ofMillis(200)).build();
        assertThrows(GenerationTimeoutException.class, () -> llm.generate("Hi", soon));
        assertCancelledAtTheServer();
        Options later = Options.builder().timeout(Duration.ofSeconds(3)).build();
        StringBuilder received = new StringBuilder();
        var error = assertThrows(GenerationTimeoutException.class, () -> {
            try (var pieces = llm.streamText("Hi", later)) {
                pieces.forEach(received::append);
            }
        });
        assertEquals(received.toString(), error.partialText());
        assertTrue(received.length() > 0);
    }

    @Test
    void aClientsTimeoutBoundsItsOtherCallsToo() throws Exception {
        server.answer("ListLlms", (request, observer) -> {});
        try (var impatient = RemoteLLM.builder(server.address())
                .defaults(Options.builder().timeout(Duration.ofMillis(200)).build())
                .build()) {
            assertThrows(GenerationTimeoutException.class, impatient::listLlms);
        }
    }

    /** Collects a publisher's signals; requests a first number of events by itself, and more when the test says. */
    private static final class Collector implements Flow.Subscriber<Event> {
        final BlockingQueue<Object> signals = new LinkedBlockingQueue<>();
        final CountDownLatch subscribed = new CountDownLatch(1);
        Flow.Subscription subscription;
        private final long first;

        Collector(long first) {
            this.first = first;
        }

        @Override
        public void onSubscribe(Flow.Subscription subscription) {
            this.subscription = subscription;
            subscribed.countDown();
            if (first != 0) {
                subscription.request(first);
            }
        }

        @Override
        public void onNext(Event event) {
            signals.add(event);
        }

        @Override
        public void onError(Throwable error) {
            signals.add(error);
        }

        @Override
        public void onComplete() {
            signals.add("complete");
        }

        Object next() throws InterruptedException {
            return signals.poll(TestServer.GUARD, TimeUnit.SECONDS);
        }
    }

    @Test
    void aPublisherTellsEveryEventAndTheEnd() throws Exception {
        server.say("a b");
        Flow.Publisher<Event> publisher = llm.publish("Hi", Options.NONE);
        for (int turn = 0; turn < 2; turn++) {
            Collector collector = new Collector(Long.MAX_VALUE);
            publisher.subscribe(collector);
            assertInstanceOf(Event.Started.class, collector.next());
            assertEquals(new Event.TextDelta("a ", List.of()), collector.next());
            assertEquals(new Event.TextDelta("b", List.of()), collector.next());
            assertInstanceOf(Event.Finished.class, collector.next());
            assertEquals("complete", collector.next());
        }
        assertEquals(2, server.requests.size());
    }

    @Test
    void aPublisherTellsNoMoreThanWasAskedFor() throws Exception {
        Collector collector = new Collector(2);
        llm.publish("Hi", Options.NONE).subscribe(collector);
        List<Object> received = new ArrayList<>(List.of(collector.next(), collector.next()));
        Thread.sleep(200);
        assertTrue(collector.signals.isEmpty());
        collector.subscription.request(3);
        for (int more = 0; more < 3; more++) {
            received.add(collector.next());
        }
        assertEquals(5, received.size());
        collector.subscription.cancel();
        assertCancelledAtTheServer();
        collector.subscription.request(1);
        assertTrue(collector.signals.isEmpty());
    }

    /** Lets gRPC report the end of a cancelled call before its cancel returns. */
    private static final class SlowCancel implements ClientInterceptor {
        @Override
        public <Q, M> ClientCall<Q, M> interceptCall(MethodDescriptor<Q, M> method, CallOptions options, Channel next) {
            return new ForwardingClientCall.SimpleForwardingClientCall<>(next.newCall(method, options)) {
                @Override
                public void cancel(String reason, Throwable cause) {
                    super.cancel(reason, cause);
                    LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(200));
                }
            };
        }
    }

    @Test
    void aSubscriberThatLeavesHearsNothingMore() throws Exception {
        Collector collector = new Collector(1);
        try (var slow = RemoteLLM.builder(server.address())
                .channel(channel -> channel.intercept(new SlowCancel()))
                .build()) {
            slow.publish("Hi", Options.NONE).subscribe(collector);
            assertInstanceOf(Event.Started.class, collector.next());
            collector.subscription.cancel();
            assertCancelledAtTheServer();
        }
        assertTrue(collector.signals.isEmpty());
    }

    @Test
    void aPublisherTellsErrorsOnce() throws Exception {
        server.answer("StreamGenerate", TestServer.started(), TestServer.delta("half"));
        Collector collector = new Collector(10);
        llm.publish("Hi", Options.NONE).subscribe(collector);
        collector.next();
        collector.next();
        assertEquals("half", ((IncompleteStreamException) collector.next()).partialText());

        server.answer(
                "StreamGenerate",
                (request, observer) -> observer.onError(new TestServer.Failure(io.grpc.Status.Code.NOT_FOUND, "who?")
                        .reason("UNKNOWN_LLM", java.util.Map.of())
                        .exception()));
        collector = new Collector(1);
        llm.publish(List.of(ChatMessage.user("Hi")), Options.NONE).subscribe(collector);
        assertInstanceOf(UnknownLLMException.class, collector.next());
        assertTrue(collector.signals.isEmpty());
    }

    @Test
    void aSubscriberThatAsksForLessThanOneIsToldSo() throws Exception {
        Collector collector = new Collector(-1);
        llm.publish("Hi", Options.NONE).subscribe(collector);
        assertInstanceOf(IllegalArgumentException.class, collector.next());
        assertTrue(server.requests.isEmpty());
    }

    @Test
    void aSubscriberThatLeavesAtOnceSendsNothing() throws Exception {
        Collector collector = new Collector(0);
        llm.publish("Hi", Options.NONE).subscribe(new Flow.Subscriber<>() {
            @Override
            public void onSubscribe(Flow.Subscription subscription) {
                subscription.cancel();
            }

            @Override
            public void onNext(Event event) {
                collector.onNext(event);
            }

            @Override
            public void onError(Throwable error) {
                collector.onError(error);
            }

            @Override
            public void onComplete() {
                collector.onComplete();
            }
        });
        server.say("There");
        assertEquals("There", llm.generate("Hi"));
        assertEquals(1, server.requests.size());
        assertTrue(collector.signals.isEmpty());
    }
}
