package io.abstractllm;

import io.grpc.Attributes;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;

/**
 * Retries calls whose connection the server closed with a GOAWAY frame that carries an error, unless their answer had
 * begun. grpc-java alone reports them as INTERNAL, by the frame's error code, so its retry policy does not apply; where
 * no attempt is left they become UNAVAILABLE, as in gRPC's other languages.
 *
 * @param maxAttempts the most attempts of a call; 1 where retries are switched off
 */
record GoAwayRetryInterceptor(int maxAttempts) implements ClientInterceptor {
    private static final String DESCRIPTION = "Abrupt GOAWAY closed sent stream";

    @Override
    public <Q, M> ClientCall<Q, M> interceptCall(MethodDescriptor<Q, M> method, CallOptions options, Channel next) {
        return method.getType().clientSendsOneMessage()
                ? new RetryableCall<>(method, options, next)
                : next.newCall(method, options);
    }

    private static boolean isGoAway(Status status) {
        String description = status.getDescription();
        return status.getCode() == Status.Code.INTERNAL && description != null && description.startsWith(DESCRIPTION);
    }

    /** A call with one request message, which can be sent again. */
    private final class RetryableCall<Q, M> extends ClientCall<Q, M> {
        private final MethodDescriptor<Q, M> method;
        private final CallOptions options;
        private final Channel next;
        private ClientCall<Q, M> attempt;
        private int attempts = 1;
        private Listener<M> listener;
        private Metadata headers;
        private Q message;
        private int requested;
        private boolean cancelled;

        RetryableCall(MethodDescriptor<Q, M> method, CallOptions options, Channel next) {
            this.method = method;
            this.options = options;
            this.next = next;
            this.attempt = next.newCall(method, options);
        }

        @Override
        public synchronized void start(Listener<M> listener, Metadata headers) {
            this.listener = listener;
            this.headers = headers;
            startAttempt();
        }

        @Override
        public synchronized void request(int count) {
            requested = (int) Math.min((long) requested + count, Integer.MAX_VALUE);
            attempt.request(count);
        }

        @Override
        public synchronized void sendMessage(Q message) {
            this.message = message;
            attempt.sendMessage(message);
        }

        @Override
        public synchronized void halfClose() {
            attempt.halfClose();
        }

        @Override
        public synchronized void cancel(String reason, Throwable cause) {
            cancelled = true;
            attempt.cancel(reason, cause);
        }

        @Override
        public synchronized boolean isReady() {
            return attempt.isReady();
        }

        @Override
        public synchronized Attributes getAttributes() {
            return attempt.getAttributes();
        }

        private void startAttempt() {
            Metadata copy = new Metadata();
            copy.merge(headers);
            attempt.start(new AttemptListener(), copy);
        }

        /** Begins another attempt. Returns false if the caller cancelled, or no attempt is left. */
        private synchronized boolean retry() {
            if (cancelled || attempts == maxAttempts) {
                return false;
            }
            attempts++;
            attempt = next.newCall(method, options);
            startAttempt();
            attempt.request(requested);
            attempt.sendMessage(message);
            attempt.halfClose();
            return true;
        }

        private final class AttemptListener extends ForwardingClientCallListener<M> {
            private boolean answered;

            @Override
            protected Listener<M> delegate() {
                return listener;
            }

            @Override
            public void onHeaders(Metadata headers) {
                answered = true;
                super.onHeaders(headers);
            }

            @Override
            public void onClose(Status status, Metadata trailers) {
                if (!isGoAway(status)) {
                    super.onClose(status, trailers);
                } else if (answered || !retry()) {
                    super.onClose(Status.UNAVAILABLE.withDescription(status.getDescription()), trailers);
                }
            }
        }
    }
}
