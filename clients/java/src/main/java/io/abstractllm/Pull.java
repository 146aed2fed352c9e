package io.abstractllm;

import io.grpc.ClientCall;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import java.util.Iterator;
import java.util.NoSuchElementException;

/** A streaming call that begins with the first value asked for. */
final class Pull<Q, M, T> implements Iterator<T> {
    private final Calls calls;
    private final MethodDescriptor<Q, M> method;
    private final Q request;
    private final CallSettings settings;
    private final Reader<M, T> reader;
    private Iterator<M> messages;
    private T next;

    /** The other thread that may look at what follows is one that closes. */
    private ClientCall<Q, M> call;

    private boolean closed;
    private boolean ended;

    Pull(Calls calls, MethodDescriptor<Q, M> method, Q request, CallSettings settings, Reader<M, T> reader) {
        this.calls = calls;
        this.method = method;
        this.request = request;
        this.settings = settings;
        this.reader = reader;
    }

    @Override
    public boolean hasNext() {
        while (next == null && start()) {
            try {
                if (messages.hasNext()) {
                    next = reader.read(messages.next());
                } else {
                    end();
                    reader.end();
                }
            } catch (StatusRuntimeException error) {
                end();
                throw calls.exception(error, reader.text());
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

    /** Starts the call if it is not; false if it is over. */
    private synchronized boolean start() {
        if (ended) {
            return false;
        }
        if (closed) {
            ended = true;
            ErrorFacts facts = new ErrorFacts("the stream was closed before its end");
            facts.partialText = reader.text();
            throw new GenerationCancelledException(facts);
        }
        if (call == null) {
            call = calls.begin(method, settings);
            messages = ClientCalls.blockingServerStreamingCall(call, request);
        }
        return true;
    }
}
