package io.abstractllm;

import java.util.Iterator;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * A stream of values as the server sends them: an answer's events, its text, or reports of progress. The call begins
 * when the first value is read. Closing the stream before its end cancels the call, and the server stops working for it
 * at once, so use a try-with-resources statement:
 *
 * <pre>{@code
 * try (var pieces = llm.streamText("Count from 1 to 20.")) {
 *     for (String piece : pieces) {
 *         System.out.print(piece);
 *     }
 * }
 * }</pre>
 *
 * <p>A stream is read once, by one thread; any thread may close it. Interrupting the reading thread cancels the call.
 *
 * @param <T> the type of the values
 */
public final class RemoteStream<T> implements Iterable<T>, AutoCloseable {
    private final StreamIterator<?, ?, T> values;
    private boolean taken;

    RemoteStream(StreamIterator<?, ?, T> values) {
        this.values = values;
    }

    /**
     * The values, once. The iterator's methods throw {@link AbstractLLMException} where the call fails, and
     * {@link GenerationCancelledException} where the stream was closed before its end.
     *
     * @return the iterator
     * @throws IllegalStateException if the values were taken before
     */
    @Override
    public Iterator<T> iterator() {
        if (taken) {
            throw new IllegalStateException("a RemoteStream is read only once");
        }
        taken = true;
        return values;
    }

    /**
     * The values, once, as a stream of the Java library. Closing either closes both.
     *
     * @return the stream
     * @throws IllegalStateException if the values were taken before
     */
    public Stream<T> stream() {
        int traits = Spliterator.ORDERED | Spliterator.NONNULL;
        return StreamSupport.stream(Spliterators.spliteratorUnknownSize(iterator(), traits), false)
                .onClose(this::close);
    }

    /** Cancels the call, unless it is over. */
    @Override
    public void close() {
        values.close();
    }
}
