package io.abstractllm;

import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.util.concurrent.CompletableFuture;
import java.util.function.Function;

/** A connection and the kinds of calls on it; they raise the client's exceptions. */
final class Calls {
    private final ManagedChannel connection;
    private final Channel channel;
    private volatile boolean closed;

    Calls(Connection to) {
        this.connection = to.open();
        this.channel = ClientInterceptors.intercept(
                connection,
                new LostConnections(to.maxAttempts),
                MetadataUtils.newAttachHeadersInterceptor(to.metadata()));
    }

    Channel channel() {
        return channel;
    }

    /** Closes the connections; calls that run end. */
    void close() {
        closed = true;
        connection.shutdownNow();
    }

    /** Calls and waits; interrupting the thread cancels the call. */
    <Q, M> M unary(MethodDescriptor<Q, M> method, Q request, CallSettings settings) {
        try {
            return ClientCalls.blockingUnaryCall(with(settings), method, settings.callOptions(), request);
        } catch (StatusRuntimeException error) {
            throw exception(error, "");
        }
    }

    /** Calls and reads the answer; cancelling the future cancels the call. */
    <Q, M, T> CompletableFuture<T> future(
            MethodDescriptor<Q, M> method, Q request, CallSettings settings, Function<M, T> read) {
        ClientCall<Q, M> call = begin(method, settings);
        CompletableFuture<T> future = new CompletableFuture<>();
        ClientCalls.asyncUnaryCall(call, request, new StreamObserver<>() {
            @Override
            public void onNext(M message) {
                future.complete(read.apply(message));
            }

            @Override
            public void onError(Throwable error) {
                future.completeExceptionally(
                        error instanceof StatusRuntimeException status ? exception(status, "") : error);
            }

            @Override
            public void onCompleted() {
                future.completeExceptionally(new InternalException("the server ended the call without an answer"));
            }
        });
        future.whenComplete((message, error) -> {
            if (future.isCancelled()) {
                call.cancel("the caller cancelled the future", null);
            }
        });
        return future;
    }

    <Q, M, T> RemoteStream<T> stream(
            MethodDescriptor<Q, M> method, Q request, CallSettings settings, Reader<M, T> reader) {
        return new RemoteStream<>(new Pull<>(this, method, request, settings, reader));
    }

    <Q, M> ClientCall<Q, M> begin(MethodDescriptor<Q, M> method, CallSettings settings) {
        return with(settings).newCall(method, settings.callOptions());
    }

    AbstractLLMException exception(StatusRuntimeException error, String partialText) {
        return exception(error.getStatus(), error.getTrailers(), partialText, error);
    }

    AbstractLLMException exception(Status status, Metadata trailers, String partialText, Throwable cause) {
        if (closed && (status.getCode() == Code.UNAVAILABLE || status.getCode() == Code.CANCELLED)) {
            ErrorFacts facts = new ErrorFacts("the client is closed");
            facts.partialText = partialText;
            facts.cause = cause;
            return new GenerationCancelledException(facts);
        }
        return Statuses.exception(status, trailers, partialText, cause);
    }

    private Channel with(CallSettings settings) {
        return settings.metadata().keys().isEmpty()
                ? channel
                : ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(settings.metadata()));
    }
}
