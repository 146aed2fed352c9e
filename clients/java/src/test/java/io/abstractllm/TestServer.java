package io.abstractllm;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.abstractllm.v1.ConfigServiceGrpc;
import io.abstractllm.v1.Finished;
import io.abstractllm.v1.GenerateResponse;
import io.abstractllm.v1.GenerationServiceGrpc;
import io.abstractllm.v1.ModelServiceGrpc;
import io.abstractllm.v1.Started;
import io.abstractllm.v1.StreamGenerateResponse;
import io.abstractllm.v1.TextDelta;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Server;
import io.grpc.ServerBuilder;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerCredentials;
import io.grpc.ServerInterceptor;
import io.grpc.ServerServiceDefinition;
import io.grpc.ServiceDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** A real server on a free port, whose answers each test writes. */
final class TestServer implements AutoCloseable, ServerInterceptor {
    /** Seconds after which a test gives up waiting for what should come at once. */
    static final long GUARD = 60;

    interface Answer {
        void to(Message request, ServerCallStreamObserver<Message> observer) throws Exception;
    }

    final List<Message> requests = new CopyOnWriteArrayList<>();
    final List<Metadata> metadata = new CopyOnWriteArrayList<>();
    final CountDownLatch cancelled = new CountDownLatch(1);
    private final Map<String, Answer> answers = new ConcurrentHashMap<>();
    private final ScheduledExecutorService clock = Executors.newSingleThreadScheduledExecutor();
    private final Server server;

    TestServer() throws IOException {
        this(0, InsecureServerCredentials.create());
    }

    TestServer(int port, ServerCredentials credentials) throws IOException {
        this(NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", port), credentials));
    }

    TestServer(ServerBuilder<?> builder) throws IOException {
        for (ServiceDescriptor service : List.of(
                GenerationServiceGrpc.getServiceDescriptor(),
                ModelServiceGrpc.getServiceDescriptor(),
                ConfigServiceGrpc.getServiceDescriptor())) {
            builder.addService(served(service));
        }
        server = builder.intercept(this)
                .maxInboundMessageSize(64 * 1024 * 1024)
                .build()
                .start();
    }

    int port() {
        return server.getPort();
    }

    String address() {
        return "127.0.0.1:" + port();
    }

    @Override
    public void close() {
        stop();
    }

    /** Ends it at once; a second time does nothing. */
    void stop() {
        server.shutdownNow();
        clock.shutdownNow();
        try {
            server.awaitTermination(GUARD, TimeUnit.SECONDS);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    void answer(String method, Answer answer) {
        answers.put(method, answer);
    }

    /** Lets a unary method, or each call of a streaming one, answer these messages. */
    void answer(String method, Message... messages) {
        answer(method, (request, observer) -> {
            for (Message message : messages) {
                observer.onNext(message);
            }
            observer.onCompleted();
        });
    }

    /** Lets Generate and StreamGenerate answer a text, word by word. */
    void say(String text) {
        answer(
                "Generate",
                GenerateResponse.newBuilder().setId("1").setText(text).build());
        answer("StreamGenerate", (request, observer) -> {
            observer.onNext(started());
            for (String word : text.split("(?<= )")) {
                observer.onNext(delta(word));
            }
            observer.onNext(finished());
            observer.onCompleted();
        });
    }

    /** Lets a call send words until it is cancelled, or wait. */
    void goOnForEver() {
        answer("Generate", (request, observer) -> {});
        answer("StreamGenerate", (request, observer) -> {
            observer.onNext(started());
            Runnable send = () -> {
                if (observer.isCancelled()) {
                    throw new CancellationException(); // ends the repetition
                }
                observer.onNext(delta("on "));
            };
            clock.scheduleAtFixedRate(send, 0, 5, TimeUnit.MILLISECONDS);
        });
    }

    /** Lets Generate and StreamGenerate fail so many times, then answer "There". */
    void fail(int times, Failure failure) {
        say("There");
        AtomicInteger left = new AtomicInteger(times);
        for (String method : List.of("Generate", "StreamGenerate")) {
            Answer then = answers.get(method);
            answer(method, (request, observer) -> {
                if (left.getAndDecrement() > 0) {
                    observer.onError(failure.exception());
                } else {
                    then.to(request, observer);
                }
            });
        }
    }

    static StreamGenerateResponse started() {
        return StreamGenerateResponse.newBuilder()
                .setStarted(Started.newBuilder()
                        .setId("1")
                        .setLlm("local")
                        .setProvider("test")
                        .setModel("m"))
                .build();
    }

    static StreamGenerateResponse delta(String text) {
        return StreamGenerateResponse.newBuilder()
                .setTextDelta(TextDelta.newBuilder().setText(text))
                .build();
    }

    static StreamGenerateResponse finished() {
        return StreamGenerateResponse.newBuilder()
                .setFinished(Finished.newBuilder().setFinishReasonValue(FinishReason.STOP.number()))
                .build();
    }

    @Override
    public <Q, M> ServerCall.Listener<Q> interceptCall(
            ServerCall<Q, M> call, Metadata headers, ServerCallHandler<Q, M> next) {
        metadata.add(headers);
        return next.startCall(call, headers);
    }

    private ServerServiceDefinition served(ServiceDescriptor service) {
        ServerServiceDefinition.Builder served = ServerServiceDefinition.builder(service);
        for (MethodDescriptor<?, ?> method : service.getMethods()) {
            addMethod(served, method);
        }
        return served.build();
    }

    @SuppressWarnings("unchecked")
    private void addMethod(ServerServiceDefinition.Builder served, MethodDescriptor<?, ?> method) {
        var typed = (MethodDescriptor<Message, Message>) method;
        String name = method.getBareMethodName();
        served.addMethod(
                typed,
                method.getType() == MethodDescriptor.MethodType.UNARY
                        ? ServerCalls.asyncUnaryCall((request, observer) -> handle(name, request, observer))
                        : ServerCalls.asyncServerStreamingCall((request, observer) -> handle(name, request, observer)));
    }

    private void handle(String name, Message request, StreamObserver<Message> observer) {
        requests.add(request);
        var typed = (ServerCallStreamObserver<Message>) observer;
        typed.setOnCancelHandler(cancelled::countDown);
        try {
            answers.get(name).to(request, typed);
        } catch (Exception error) {
            observer.onError(error);
        }
    }

    /** An error that a call ends with, and its google.rpc details. */
    static final class Failure {
        private final Status status;
        private final com.google.rpc.Status.Builder details;
        private final Metadata trailers = new Metadata();

        Failure(Status.Code code, String message) {
            status = code.toStatus().withDescription(message);
            details = com.google.rpc.Status.newBuilder().setCode(code.value()).setMessage(message);
        }

        Failure reason(String reason, Map<String, String> facts) {
            return detail(ErrorInfo.newBuilder()
                    .setDomain(Statuses.DOMAIN)
                    .setReason(reason)
                    .putAllMetadata(facts)
                    .build());
        }

        Failure field(String field) {
            return detail(BadRequest.newBuilder()
                    .addFieldViolations(BadRequest.FieldViolation.newBuilder().setField(field))
                    .build());
        }

        Failure retryAfterMillis(int millis) {
            trailer("grpc-retry-pushback-ms", Integer.toString(millis));
            return detail(RetryInfo.newBuilder()
                    .setRetryDelay(
                            Duration.newBuilder().setSeconds(millis / 1000).setNanos(millis % 1000 * 1_000_000))
                    .build());
        }

        Failure detail(Message detail) {
            details.addDetails(Any.pack(detail));
            return this;
        }

        Failure trailer(String name, String value) {
            trailers.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value);
            return this;
        }

        StatusRuntimeException exception() {
            return exception(details.build().toByteArray());
        }

        StatusRuntimeException exception(byte[] encoded) {
            Metadata all = new Metadata();
            all.merge(trailers);
            all.put(Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER), encoded);
            return status.asRuntimeException(all);
        }
    }
}
