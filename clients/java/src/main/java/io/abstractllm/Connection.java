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

/** An open connection and the kinds of calls on it; they throw the client's exceptions. */
final class Connection {
    private final ManagedChannel managedChannel;
    private final Channel channel;
    private volatile boolean closed;

    Connection(ConnectionSettings settings) {
        this.managedChannel = settings.openChannel();
        this.channel = ClientInterceptors.intercept(
                managedChannel,
                new GoAwayRetryInterceptor(settings.maxAttempts),
                MetadataUtils.newAttachHeadersInterceptor(settings.metadata()));
    }

    Channel channel() {
        return channel;
    }

    /** Closes the connections; calls that run end. */
    void close() {
        closed = true;
        managedChannel.shutdownNow();
    }

    /** Calls a unary method and waits; interrupting the thread cancels the call. */
    <Q, M> M unary(MethodDescriptor<Q, M> method, Q request, CallSettings settings) {
        try {
            return ClientCalls.blockingUnaryCall(channelWith(settings), method, settings.callOptions(), request);
        } catch (StatusRuntimeException error) {
            throw exception(error, "");
        }
    }

    /** Calls a unary method without waiting; cancelling the future cancels the call. */
    <Q, M, T> CompletableFuture<T> future(
            MethodDescriptor<Q, M> method, Q request, CallSettings settings, Function<M, T> decode) {
        ClientCall<Q, M> call = newCall(method, settings);
        CompletableFuture<T> future = new CompletableFuture<>();
        ClientCalls.asyncUnaryCall(call, request, new StreamObserver<>() {
            @Override
            public void onNext(M message) {
                future.complete(decode.apply(message));
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

    /** A streaming call; it begins when the first value is read. */
    <Q, M, T> RemoteStream<T> stream(
            MethodDescriptor<Q, M> method, Q request, CallSettings settings, StreamDecoder<M, T> decoder) {
        return new RemoteStream<>(new StreamIterator<>(this, method, request, settings, decoder));
    }

    /** A call of one method, not started yet. */
    <Q, M> ClientCall<Q, M> newCall(MethodDescriptor<Q, M> method, CallSettings settings) {
        return channelWith(settings).newCall(method, settings.callOptions());
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

    private Channel channelWith(CallSettings settings) {
        return settings.metadata().keys().isEmpty()
                ? channel
                : ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(settings.metadata()));
    }
}
