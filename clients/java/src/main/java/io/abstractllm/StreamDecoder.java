package io.abstractllm;

import io.abstractllm.v1.StreamGenerateResponse;
import java.util.function.Function;

/** Decodes one stream of messages, and keeps the text that came before a failure. */
abstract class StreamDecoder<M, T> {
    /** Decodes a message; null for one to skip. */
    abstract T decode(M message);

    /** Checks that the stream was complete. */
    void end() {}

    /** The answer's text so far. */
    String text() {
        return "";
    }

    /** Decodes each message by itself, as the reports of progress. */
    static <M, T> StreamDecoder<M, T> of(Function<M, T> function) {
        return new StreamDecoder<>() {
            @Override
            T decode(M message) {
                return function.apply(message);
            }
        };
    }

    /** Decodes the events of an answer. */
    static final class Events extends StreamDecoder<StreamGenerateResponse, Event> {
        private final StringBuilder text = new StringBuilder();
        private boolean finished;

        @Override
        Event decode(StreamGenerateResponse message) {
            Event event = Responses.event(message);
            if (event instanceof Event.TextDelta delta) {
                text.append(delta.text());
            }
            finished |= event instanceof Event.Finished;
            return event;
        }

        @Override
        void end() {
            if (!finished) {
                ErrorFacts facts = new ErrorFacts("the answer ended without a finish reason");
                facts.partialText = text();
                throw new IncompleteStreamException(facts);
            }
        }

        @Override
        String text() {
            return text.toString();
        }
    }

    /** Decodes the pieces of an answer's text. */
    static final class Texts extends StreamDecoder<StreamGenerateResponse, String> {
        private final Events events = new Events();

        @Override
        String decode(StreamGenerateResponse message) {
            return events.decode(message) instanceof Event.TextDelta delta
                            && !delta.text().isEmpty()
                    ? delta.text()
                    : null;
        }

        @Override
        void end() {
            events.end();
        }

        @Override
        String text() {
            return events.text();
        }
    }
}
