package io.abstractllm;

import io.abstractllm.v1.GenerateRequest;
import io.abstractllm.v1.GenerationServiceGrpc;
import io.abstractllm.v1.StreamGenerateResponse;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.Objects;
import java.util.concurrent.Flow;

/** Publishes the events of an answer. Each subscription is a call; its demand becomes gRPC's flow control. */
record EventPublisher(Connection connection, PreparedCall prepared) implements Flow.Publisher<Event> {
    @Override
    public void subscribe(Flow.Subscriber<? super Event> subscriber) {
        Objects.requireNonNull(subscriber, "subscriber");
        new Subscription(subscriber).start();
    }

    private final class Subscription extends ClientCall.Listener<StreamGenerateResponse> implements Flow.Subscription {
        private final Flow.Subscriber<? super Event> subscriber;
        private final StreamDecoder.Events decoder = new StreamDecoder.Events();
        private final ClientCall<GenerateRequest, StreamGenerateResponse> call;

        /** The demand from before the call was started, which gRPC does not accept yet. */
        private long earlyDemand;

        private boolean started;
        private volatile boolean ended;

        Subscription(Flow.Subscriber<? super Event> subscriber) {
            this.subscriber = subscriber;
            this.call = connection.newCall(GenerationServiceGrpc.getStreamGenerateMethod(), prepared.settings());
        }

        void start() {
            subscriber.onSubscribe(this);
            synchronized (this) {
                if (ended) {
                    return;
                }
                call.start(this, new Metadata());
                call.sendMessage(prepared.request());
                call.halfClose();
                started = true;
                if (earlyDemand > 0) {
                    call.request((int) Math.min(earlyDemand, Integer.MAX_VALUE));
                }
            }
        }

        @Override
        public void request(long count) {
            if (count <= 0 && !ended) {
                cancel();
                subscriber.onError(new IllegalArgumentException("demand must be greater than 0, got " + count));
                return;
            }
            synchronized (this) {
                if (ended) {
                    return;
                }
                if (started) {
                    call.request((int) Math.min(count, Integer.MAX_VALUE));
                } else {
                    earlyDemand = Math.min(earlyDemand, Integer.MAX_VALUE) + Math.min(count, Integer.MAX_VALUE);
                }
            }
        }

        @Override
        public synchronized void cancel() {
            boolean running = started && !ended;
            ended = true; // first, as gRPC may report the end before its cancel returns
            if (running) {
                call.cancel("the subscriber left", null);
            }
        }

        @Override
        public void onMessage(StreamGenerateResponse message) {
            Event event = decoder.decode(message);
            if (event == null) {
                call.request(1);
            } else if (!ended) {
                subscriber.onNext(event);
            }
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            if (ended) {
                return;
            }
            ended = true;
            if (!status.isOk()) {
                subscriber.onError(connection.exception(status, trailers, decoder.text(), status.getCause()));
                return;
            }
            try {
                decoder.end();
            } catch (IncompleteStreamException error) {
                subscriber.onError(error);
                return;
            }
            subscriber.onComplete();
        }
    }
}
