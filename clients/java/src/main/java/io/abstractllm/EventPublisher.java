package io.abstractllm;

import io.abstractllm.v1.GenerateRequest;
import io.abstractllm.v1.GenerationServiceGrpc;
import io.abstractllm.v1.StreamGenerateResponse;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.Objects;
import java.util.concurrent.Flow;

/** The events of an answer for {@link Flow}: each subscription is a call, its demand is gRPC's own flow control. */
record EventPublisher(Calls calls, GenerateRequest request, CallSettings settings) implements Flow.Publisher<Event> {
    @Override
    public void subscribe(Flow.Subscriber<? super Event> subscriber) {
        Objects.requireNonNull(subscriber, "subscriber");
        new Subscription(subscriber).start();
    }

    private final class Subscription extends ClientCall.Listener<StreamGenerateResponse> implements Flow.Subscription {
        private final Flow.Subscriber<? super Event> subscriber;
        private final Reader.Events reader = new Reader.Events();
        private final ClientCall<GenerateRequest, StreamGenerateResponse> call;

        /** Demand from before the call was started; gRPC takes none before. */
        private long early;

        private boolean started;
        private volatile boolean over;

        Subscription(Flow.Subscriber<? super Event> subscriber) {
            this.subscriber = subscriber;
            this.call = calls.begin(GenerationServiceGrpc.getStreamGenerateMethod(), settings);
        }

        void start() {
            subscriber.onSubscribe(this);
            synchronized (this) {
                if (over) {
                    return;
                }
                call.start(this, new Metadata());
                call.sendMessage(request);
                call.halfClose();
                started = true;
                if (early > 0) {
                    call.request((int) Math.min(early, Integer.MAX_VALUE));
                }
            }
        }

        @Override
        public void request(long count) {
            if (count <= 0 && !over) {
                cancel();
                subscriber.onError(new IllegalArgumentException("demand must be greater than 0, got " + count));
                return;
            }
            synchronized (this) {
                if (over) {
                    return;
                }
                if (started) {
                    call.request((int) Math.min(count, Integer.MAX_VALUE));
                } else {
                    early = Math.min(early, Integer.MAX_VALUE) + Math.min(count, Integer.MAX_VALUE);
                }
            }
        }

        @Override
        public synchronized void cancel() {
            if (started && !over) {
                call.cancel("the subscriber left", null);
            }
            over = true;
        }

        @Override
        public void onMessage(StreamGenerateResponse message) {
            Event event = reader.read(message);
            if (event == null) {
                call.request(1);
            } else if (!over) {
                subscriber.onNext(event);
            }
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            if (over) {
                return;
            }
            over = true;
            if (!status.isOk()) {
                subscriber.onError(calls.exception(status, trailers, reader.text(), status.getCause()));
                return;
            }
            try {
                reader.end();
            } catch (IncompleteStreamException error) {
                subscriber.onError(error);
                return;
            }
            subscriber.onComplete();
        }
    }
}
