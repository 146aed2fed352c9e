package io.abstractllm;

import com.google.protobuf.ByteString;

/** One piece of a chat message. */
public sealed interface Part {
    /**
     * Opaque bytes of the provider, such as a signature of its thinking, to be returned unchanged with the part when
     * the conversation goes on.
     *
     * @return the bytes; empty where there are none
     */
    ByteString providerState();

    /**
     * Text.
     *
     * @param text the text
     * @param providerState see {@link Part#providerState()}
     */
    record Text(String text, ByteString providerState) implements Part {
        /**
         * Text of the caller.
         *
         * @param text the text
         */
        public Text(String text) {
            this(text, ByteString.EMPTY);
        }
    }

    /**
     * An image, as bytes: the server never fetches one from an address.
     *
     * @param data the encoded file
     * @param mimeType its format, such as {@code image/png}
     * @param providerState see {@link Part#providerState()}
     */
    record Image(ByteString data, String mimeType, ByteString providerState) implements Part {
        /**
         * An image of the caller.
         *
         * @param data the encoded file
         * @param mimeType its format, such as {@code image/png}
         */
        public Image(byte[] data, String mimeType) {
            this(ByteString.copyFrom(data), mimeType, ByteString.EMPTY);
        }
    }

    /**
     * The model's request to call a tool.
     *
     * @param id identifies the call; its result repeats it
     * @param name the tool's name
     * @param argumentsJson the arguments as the model wrote them, normally a JSON object
     * @param providerState see {@link Part#providerState()}
     */
    record ToolCall(String id, String name, String argumentsJson, ByteString providerState) implements Part {
        /**
         * A call, as a program writes it into a conversation.
         *
         * @param id identifies the call
         * @param name the tool's name
         * @param argumentsJson the arguments, a JSON object
         */
        public ToolCall(String id, String name, String argumentsJson) {
            this(id, name, argumentsJson, ByteString.EMPTY);
        }
    }

    /**
     * The result of a tool, sent back to the model.
     *
     * @param toolCallId the id of the call that this answers
     * @param content the result, as text
     * @param isError true where the tool failed and the content says how
     * @param providerState see {@link Part#providerState()}
     */
    record ToolResult(String toolCallId, String content, boolean isError, ByteString providerState) implements Part {
        /**
         * A result of a tool that succeeded.
         *
         * @param toolCallId the id of the call that this answers
         * @param content the result, as text
         */
        public ToolResult(String toolCallId, String content) {
            this(toolCallId, content, false, ByteString.EMPTY);
        }
    }

    /**
     * The thinking of a reasoning model before its answer.
     *
     * @param text the thinking, or a summary of it
     * @param providerState see {@link Part#providerState()}
     */
    record Reasoning(String text, ByteString providerState) implements Part {
        /**
         * Thinking without a provider's state.
         *
         * @param text the thinking
         */
        public Reasoning(String text) {
            this(text, ByteString.EMPTY);
        }
    }
}
