package io.abstractllm;

import io.abstractllm.v1.StreamGenerateResponse;
import java.util.function.Function;

/** Follows one stream of messages: decodes them, and knows what came before a failure. */
abstract class Reader<M, T> {
    /** The next value; null for a message to skip. */
    abstract T read(M message);

    /** Checks that the stream was whole. */
    void end() {}

    /** The answer's text so far. */
    String text() {
        return "";
    }

    /** Reads reports of progress. */
    static <M, T> Reader<M, T> of(Function<M, T> decode) {
        return new Reader<>() {
            @Override
            T read(M message) {
                return decode.apply(message);
            }
        };
    }

    /** Reads the events of an answer. */
    static final class Events extends Reader<StreamGenerateResponse, Event> {
        private final StringBuilder text = new StringBuilder();
        private boolean finished;

        @Override
        Event read(StreamGenerateResponse message) {
            Event event = Answers.event(message);
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

    /** Reads the pieces of an answer's text. */
    static final class Texts extends Reader<StreamGenerateResponse, String> {
        private final Events events = new Events();

        @Override
        String read(StreamGenerateResponse message) {
            return events.read(message) instanceof Event.TextDelta delta
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
