package io.abstractllm;

import io.grpc.CallOptions;
import io.grpc.Metadata;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/**
 * The settings of one call.
 *
 * @param timeout the most time that it may take; null: no limit
 * @param metadata the metadata that is sent with it
 */
record CallSettings(Duration timeout, Metadata metadata) {
    private static final Pattern NAME = Pattern.compile("[a-z0-9_.-]+(?<!-bin)");

    /**
     * Takes the settings of the next call from its options; functions that supply metadata are called now.
     *
     * @throws ConfigurationException for metadata that gRPC cannot send
     */
    static CallSettings of(Options options) {
        return new CallSettings(options.timeout(), metadata(options.metadata()));
    }

    CallSettings withoutTimeout() {
        return new CallSettings(null, metadata);
    }

    /** Options for gRPC; the deadline begins to run now. */
    CallOptions callOptions() {
        return timeout == null
                ? CallOptions.DEFAULT
                : CallOptions.DEFAULT.withDeadlineAfter(TimeUnit.NANOSECONDS.convert(timeout), TimeUnit.NANOSECONDS);
    }

    static Metadata metadata(Map<String, String> entries) {
        Metadata metadata = new Metadata();
        entries.forEach((name, value) -> {
            if (!NAME.matcher(name).matches() || !isPrintable(value)) {
                String rule = "must be lower-case names with values of printable ASCII";
                throw new ConfigurationException(ErrorFacts.ofField("metadata", rule, rule, name));
            }
            metadata.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value);
        });
        return metadata;
    }

    static boolean isPrintable(String value) {
        return value.chars().allMatch(character -> character >= ' ' && character <= '~');
    }
}
