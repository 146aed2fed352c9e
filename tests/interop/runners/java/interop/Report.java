package interop;

import com.google.protobuf.ByteString;
import io.abstractllm.AbstractLLMException;
import io.abstractllm.ChatMessage;
import io.abstractllm.Completion;
import io.abstractllm.Event;
import io.abstractllm.FinishReason;
import io.abstractllm.Part;
import io.abstractllm.RemoteStream;
import io.abstractllm.Usage;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;

/** The form in which runners report: the same in every language. */
public final class Report {
    private Report() {}

    /**
     * A map that keeps its order and may hold nulls.
     *
     * @param entries keys and values in turn
     * @return the map
     */
    public static Map<String, Object> map(Object... entries) {
        Map<String, Object> map = new LinkedHashMap<>();
        for (int at = 0; at < entries.length; at += 2) {
            map.put((String) entries[at], entries[at + 1]);
        }
        return map;
    }

    /**
     * An error: its class, its reason, and its facts.
     *
     * @param error the error
     * @return the report
     */
    public static Map<String, Object> error(AbstractLLMException error) {
        Map<String, Object> report = shortError(error);
        report.putAll(map(
                "message", error.getMessage(),
                "retryable", error.retryable(),
                "retry_after",
                        error.retryAfter().map(wait -> wait.toNanos() / 1e9).orElse(null),
                "llm", error.llm().orElse(null),
                "provider", error.provider().orElse(null),
                "upstream_status",
                        error.upstreamStatus().isPresent()
                                ? error.upstreamStatus().getAsInt()
                                : null,
                "has_request_id", error.requestId().isPresent(),
                "field", error.field().orElse(null),
                "limit", error.limit().orElse(null),
                "requested", error.requested().orElse(null),
                "output_tokens", orNull(error.outputTokens()),
                "partial_text", error.partialText()));
        return report;
    }

    /**
     * An error: its class and its reason alone.
     *
     * @param error the error
     * @return the report
     */
    public static Map<String, Object> shortError(AbstractLLMException error) {
        String name = error.getClass().getSimpleName().replaceFirst("Exception$", "Error");
        return map("class", name, "reason", error.reason().name());
    }

    /**
     * The outcome of a call: its value, or its error's class and reason.
     *
     * @param act the call
     * @return the report
     * @throws Exception if it throws anything else
     */
    public static Object outcome(Callable<?> act) throws Exception {
        try {
            return act.call();
        } catch (AbstractLLMException error) {
            return shortError(error);
        }
    }

    /**
     * All values of a stream.
     *
     * @param <T> the type of the values
     * @param stream the stream; it is closed
     * @return the values
     */
    public static <T> List<T> all(RemoteStream<T> stream) {
        try (stream) {
            return stream.stream().toList();
        }
    }

    /**
     * The pieces of a stream, joined.
     *
     * @param pieces the stream; it is closed
     * @return the text
     */
    public static String joined(RemoteStream<String> pieces) {
        try (pieces) {
            return pieces.stream().collect(Collectors.joining());
        }
    }

    /**
     * An event by its type.
     *
     * @param event the event
     * @return the report
     */
    public static Map<String, Object> event(Event event) {
        if (event instanceof Event.Started started) {
            return map(
                    "type", "started",
                    "llm", started.llm(),
                    "provider", started.provider(),
                    "model", started.model());
        }
        if (event instanceof Event.TextDelta delta) {
            return map("type", "text", "text", delta.text());
        }
        if (event instanceof Event.ReasoningDelta delta) {
            return map("type", "reasoning", "text", delta.text());
        }
        if (event instanceof Event.ToolCallDelta delta) {
            return map(
                    "type", "tool_call",
                    "index", delta.index(),
                    "id", delta.id(),
                    "name", delta.name(),
                    "arguments_fragment", delta.argumentsFragment());
        }
        Event.Finished finished = (Event.Finished) event;
        return map(
                "type", "finished",
                "finish_reason", finishReason(finished.finishReason()),
                "stop_sequence", finished.stopSequence(),
                "usage", usage(finished.usage()));
    }

    /**
     * The word without its prefix in lower case; the number of one that this client does not know.
     *
     * @param reason the reason
     * @return the report
     */
    public static Object finishReason(FinishReason reason) {
        String word = reason.toString();
        return word.equals(Integer.toString(reason.number())) ? (Object) reason.number() : word;
    }

    private static Map<String, Object> usage(Usage usage) {
        return map(
                "input_tokens", orNull(usage.inputTokens()),
                "output_tokens", orNull(usage.outputTokens()),
                "cached_input_tokens", orNull(usage.cachedInputTokens()),
                "reasoning_tokens", orNull(usage.reasoningTokens()));
    }

    private static Long orNull(OptionalLong value) {
        return value.isPresent() ? value.getAsLong() : null;
    }

    /**
     * A whole answer.
     *
     * @param completion the answer
     * @return the report
     */
    public static Map<String, Object> completion(Completion completion) {
        return map(
                "text", completion.text(),
                "message", message(completion.message()),
                "finish_reason", finishReason(completion.finishReason()),
                "stop_sequence", completion.stopSequence(),
                "usage", usage(completion.usage()),
                "llm", completion.llm(),
                "provider", completion.provider(),
                "model", completion.model(),
                "has_id", !completion.id().isEmpty(),
                "dropped_parameters", completion.droppedParameters());
    }

    /**
     * A chat message; bytes by their size and SHA-256.
     *
     * @param message the message
     * @return the report
     */
    public static Map<String, Object> message(ChatMessage message) {
        return map(
                "role", message.role().toString(),
                "parts", message.parts().stream().map(Report::part).toList());
    }

    /**
     * One part of a message.
     *
     * @param part the part
     * @return the report
     */
    public static Map<String, Object> part(Part part) {
        Map<String, Object> report;
        if (part instanceof Part.Text text) {
            report = map("text", text.text());
        } else if (part instanceof Part.Image image) {
            Map<String, Object> facts = summary(image.data());
            facts.put("mime_type", image.mimeType());
            report = map("image", facts);
        } else if (part instanceof Part.ToolCall call) {
            report =
                    map("tool_call", map("id", call.id(), "name", call.name(), "arguments_json", call.argumentsJson()));
        } else if (part instanceof Part.ToolResult result) {
            report = map(
                    "tool_result",
                    map(
                            "tool_call_id", result.toolCallId(),
                            "content", result.content(),
                            "is_error", result.isError()));
        } else {
            report = map("reasoning", ((Part.Reasoning) part).text());
        }
        if (!part.providerState().isEmpty()) {
            report.put(
                    "provider_state",
                    HexFormat.of().formatHex(part.providerState().toByteArray()));
        }
        return report;
    }

    /**
     * The size and the SHA-256 of bytes, which stand for them.
     *
     * @param data the bytes
     * @return the report
     */
    public static Map<String, Object> summary(ByteString data) {
        try {
            byte[] digest = MessageDigest.getInstance("SHA-256").digest(data.toByteArray());
            return map("size", data.size(), "sha256", HexFormat.of().formatHex(digest));
        } catch (NoSuchAlgorithmException impossible) {
            throw new AssertionError(impossible);
        }
    }
}
