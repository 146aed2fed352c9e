package io.abstractllm;

import java.util.List;
import java.util.Objects;
import java.util.stream.Collectors;

/**
 * One turn of a conversation.
 *
 * @param role who speaks
 * @param parts what is said, in order
 */
public record ChatMessage(Role role, List<Part> parts) {
    /**
     * Copies the parts.
     *
     * @param role who speaks
     * @param parts what is said, in order
     */
    public ChatMessage {
        Objects.requireNonNull(role, "role");
        parts = List.copyOf(parts);
    }

    /**
     * Instructions to the model.
     *
     * @param text the instructions
     * @return the message
     */
    public static ChatMessage system(String text) {
        return new ChatMessage(Role.SYSTEM, List.of(new Part.Text(text)));
    }

    /**
     * What the user says.
     *
     * @param text the words
     * @return the message
     */
    public static ChatMessage user(String text) {
        return user(new Part.Text(text));
    }

    /**
     * What the user says or shows.
     *
     * @param parts text and images
     * @return the message
     */
    public static ChatMessage user(Part... parts) {
        return new ChatMessage(Role.USER, List.of(parts));
    }

    /**
     * What the model said earlier. Its answers come as messages: {@link Completion#message()}.
     *
     * @param text the words
     * @return the message
     */
    public static ChatMessage assistant(String text) {
        return new ChatMessage(Role.ASSISTANT, List.of(new Part.Text(text)));
    }

    /**
     * What tools returned.
     *
     * @param results the results
     * @return the message
     */
    public static ChatMessage tool(Part.ToolResult... results) {
        return new ChatMessage(Role.TOOL, List.of(results));
    }

    /**
     * The text parts, joined.
     *
     * @return the text
     */
    public String text() {
        return parts.stream()
                .filter(Part.Text.class::isInstance)
                .map(part -> ((Part.Text) part).text())
                .collect(Collectors.joining());
    }
}
