package io.abstractllm;

import io.grpc.CallOptions;
import io.grpc.Metadata;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/** What a call has beside its message; the timeout may be null. */
record CallSettings(Duration timeout, Metadata metadata) {
    private static final Pattern NAME = Pattern.compile("[a-z0-9_.-]+(?<!-bin)");

    /**
     * Reads the settings of the next call; functions are asked now.
     *
     * @throws ConfigurationException for metadata that gRPC cannot send
     */
    static CallSettings of(Options options) {
        return new CallSettings(options.timeout(), metadata(options.metadata()));
    }

    CallSettings withoutTimeout() {
        return new CallSettings(null, metadata);
    }

    /** The deadline begins to run now. */
    CallOptions callOptions() {
        return timeout == null
                ? CallOptions.DEFAULT
                : CallOptions.DEFAULT.withDeadlineAfter(TimeUnit.NANOSECONDS.convert(timeout), TimeUnit.NANOSECONDS);
    }

    static Metadata metadata(Map<String, String> given) {
        Metadata metadata = new Metadata();
        given.forEach((name, value) -> {
            if (!NAME.matcher(name).matches() || !isPrintable(value)) {
                String rule = "must be lower-case names with values of printable ASCII";
                throw new ConfigurationException(ErrorFacts.ofField("metadata", rule, rule, name));
            }
            metadata.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value);
        });
        return metadata;
    }

    static boolean isPrintable(String value) {
        return value.chars().allMatch(letter -> letter >= ' ' && letter <= '~');
    }
}
