package io.abstractllm;

import java.util.List;
import java.util.Objects;
import java.util.stream.Collectors;

/**
 * One message of a conversation.
 *
 * <pre>{@code
 * List<ChatMessage> messages = new ArrayList<>(List.of(ChatMessage.user("What is the capital of Italy?")));
 * messages.add(llm.complete(messages, Options.NONE).message());
 * }</pre>
 *
 * @param role the speaker
 * @param parts the parts of the message, in order
 */
public record ChatMessage(Role role, List<Part> parts) {
    /**
     * Copies the parts.
     *
     * @param role the speaker
     * @param parts the parts of the message, in order
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
     * A message of the user.
     *
     * @param text its text
     * @return the message
     */
    public static ChatMessage user(String text) {
        return user(new Part.Text(text));
    }

    /**
     * A message of the user with several parts.
     *
     * @param parts text and images
     * @return the message
     */
    public static ChatMessage user(Part... parts) {
        return new ChatMessage(Role.USER, List.of(parts));
    }

    /**
     * An earlier answer of the model. {@link Completion#message()} is one already.
     *
     * @param text its text
     * @return the message
     */
    public static ChatMessage assistant(String text) {
        return new ChatMessage(Role.ASSISTANT, List.of(new Part.Text(text)));
    }

    /**
     * The results of tools.
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
