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
        Map<String, Object> found = new LinkedHashMap<>();
        for (int at = 0; at < entries.length; at += 2) {
            found.put((String) entries[at], entries[at + 1]);
        }
        return found;
    }

    /**
     * An error: its class, its reason, and its facts.
     *
     * @param found the error
     * @return the report
     */
    public static Map<String, Object> error(AbstractLLMException found) {
        Map<String, Object> told = shortError(found);
        told.putAll(map(
                "message", found.getMessage(),
                "retryable", found.retryable(),
                "retry_after",
                        found.retryAfter().map(wait -> wait.toNanos() / 1e9).orElse(null),
                "llm", found.llm().orElse(null),
                "provider", found.provider().orElse(null),
                "upstream_status",
                        found.upstreamStatus().isPresent()
                                ? found.upstreamStatus().getAsInt()
                                : null,
                "has_request_id", found.requestId().isPresent(),
                "field", found.field().orElse(null),
                "limit", found.limit().orElse(null),
                "requested", found.requested().orElse(null),
                "output_tokens", orNull(found.outputTokens()),
                "partial_text", found.partialText()));
        return told;
    }

    /**
     * An error: its class and its reason alone.
     *
     * @param found the error
     * @return the report
     */
    public static Map<String, Object> shortError(AbstractLLMException found) {
        String name = found.getClass().getSimpleName().replaceFirst("Exception$", "Error");
        return map("class", name, "reason", found.reason().name());
    }

    /**
     * What came of a call: its value, or its error's class and reason.
     *
     * @param act the call
     * @return the report
     * @throws Exception for whatever else it throws
     */
    public static Object outcome(Callable<?> act) throws Exception {
        try {
            return act.call();
        } catch (AbstractLLMException error) {
            return shortError(error);
        }
    }

    /**
     * All that a stream brings.
     *
     * @param <T> what comes
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
     * @param found the event
     * @return the report
     */
    public static Map<String, Object> event(Event found) {
        if (found instanceof Event.Started started) {
            return map(
                    "type", "started",
                    "llm", started.llm(),
                    "provider", started.provider(),
                    "model", started.model());
        }
        if (found instanceof Event.TextDelta delta) {
            return map("type", "text", "text", delta.text());
        }
        if (found instanceof Event.ReasoningDelta delta) {
            return map("type", "reasoning", "text", delta.text());
        }
        if (found instanceof Event.ToolCallDelta delta) {
            return map(
                    "type", "tool_call",
                    "index", delta.index(),
                    "id", delta.id(),
                    "name", delta.name(),
                    "arguments_fragment", delta.argumentsFragment());
        }
        Event.Finished finished = (Event.Finished) found;
        return map(
                "type", "finished",
                "finish_reason", finishReason(finished.finishReason()),
                "stop_sequence", finished.stopSequence(),
                "usage", usage(finished.usage()));
    }

    /**
     * The word without its prefix in lower case; the number of one that this client does not know.
     *
     * @param found the reason
     * @return the report
     */
    public static Object finishReason(FinishReason found) {
        String word = found.toString();
        return word.equals(Integer.toString(found.number())) ? (Object) found.number() : word;
    }

    private static Map<String, Object> usage(Usage found) {
        return map(
                "input_tokens", orNull(found.inputTokens()),
                "output_tokens", orNull(found.outputTokens()),
                "cached_input_tokens", orNull(found.cachedInputTokens()),
                "reasoning_tokens", orNull(found.reasoningTokens()));
    }

    private static Long orNull(OptionalLong value) {
        return value.isPresent() ? value.getAsLong() : null;
    }

    /**
     * A whole answer.
     *
     * @param found the answer
     * @return the report
     */
    public static Map<String, Object> completion(Completion found) {
        return map(
                "text", found.text(),
                "message", message(found.message()),
                "finish_reason", finishReason(found.finishReason()),
                "stop_sequence", found.stopSequence(),
                "usage", usage(found.usage()),
                "llm", found.llm(),
                "provider", found.provider(),
                "model", found.model(),
                "has_id", !found.id().isEmpty(),
                "dropped_parameters", found.droppedParameters());
    }

    /**
     * A chat message; bytes by their size and SHA-256.
     *
     * @param found the message
     * @return the report
     */
    public static Map<String, Object> message(ChatMessage found) {
        return map(
                "role", found.role().toString(),
                "parts", found.parts().stream().map(Report::part).toList());
    }

    /**
     * One part of a message.
     *
     * @param found the part
     * @return the report
     */
    public static Map<String, Object> part(Part found) {
        Map<String, Object> told;
        if (found instanceof Part.Text text) {
            told = map("text", text.text());
        } else if (found instanceof Part.Image image) {
            Map<String, Object> facts = summary(image.data());
            facts.put("mime_type", image.mimeType());
            told = map("image", facts);
        } else if (found instanceof Part.ToolCall call) {
            told = map("tool_call", map("id", call.id(), "name", call.name(), "arguments_json", call.argumentsJson()));
        } else if (found instanceof Part.ToolResult result) {
            told = map(
                    "tool_result",
                    map(
                            "tool_call_id", result.toolCallId(),
                            "content", result.content(),
                            "is_error", result.isError()));
        } else {
            told = map("reasoning", ((Part.Reasoning) found).text());
        }
        if (!found.providerState().isEmpty()) {
            told.put(
                    "provider_state",
                    HexFormat.of().formatHex(found.providerState().toByteArray()));
        }
        return told;
    }

    /**
     * What stands for bytes.
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
