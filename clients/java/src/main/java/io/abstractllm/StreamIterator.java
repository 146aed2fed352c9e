package io.abstractllm;

import io.grpc.ClientCall;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import java.util.Iterator;
import java.util.NoSuchElementException;

/** The values of a streaming call, which begins when the first value is read. */
final class StreamIterator<Q, M, T> implements Iterator<T> {
    private final Connection connection;
    private final MethodDescriptor<Q, M> method;
    private final Q request;
    private final CallSettings settings;
    private final StreamDecoder<M, T> decoder;
    private Iterator<M> messages;
    private T next;

    /** These three are guarded by this object's monitor, as any thread may close the stream. */
    private ClientCall<Q, M> call;

    private boolean closed;
    private boolean ended;

    StreamIterator(
            Connection connection,
            MethodDescriptor<Q, M> method,
            Q request,
            CallSettings settings,
            StreamDecoder<M, T> decoder) {
        this.connection = connection;
        this.method = method;
        this.request = request;
        this.settings = settings;
        this.decoder = decoder;
    }

    @Override
    public boolean hasNext() {
        while (next == null && start()) {
            try {
                if (messages.hasNext()) {
                    next = decoder.decode(messages.next());
                } else {
                    end();
                    decoder.end();
                }
            } catch (StatusRuntimeException error) {
                end();
                throw connection.exception(error, decoder.text());
            }
        }
        return next != null;
    }

    @Override
    public T next() {
        if (!hasNext()) {
            throw new NoSuchElementException();
        }
        T value = next;
        next = null;
        return value;
    }

    synchronized void close() {
        if (call != null && !ended) {
            call.cancel("the caller left the stream", null);
        }
        closed = true;
    }

    private synchronized void end() {
        ended = true;
    }

    /** Starts the call on first use. Returns false if it has ended. */
    private synchronized boolean start() {
        if (ended) {
            return false;
        }
        if (closed) {
            ended = true;
            ErrorFacts facts = new ErrorFacts("the stream was closed before its end");
            facts.partialText = decoder.text();
            throw new GenerationCancelledException(facts);
        }
        if (call == null) {
            call = connection.newCall(method, settings);
            messages = ClientCalls.blockingServerStreamingCall(call, request);
        }
        return true;
    }
}
