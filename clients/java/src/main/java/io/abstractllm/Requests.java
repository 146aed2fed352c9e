package io.abstractllm;

import io.abstractllm.v1.Chat;
import io.abstractllm.v1.CountTokensRequest;
import io.abstractllm.v1.GenerateRequest;
import io.abstractllm.v1.Image;
import io.abstractllm.v1.Reasoning;
import io.abstractllm.v1.ToolCall;
import io.abstractllm.v1.ToolResult;
import java.util.List;

/** Encodes a call's arguments as the contract's requests. Ranges are checked by the server. */
final class Requests {
    private Requests() {}

    /** Encodes a prompt and its options. */
    static GenerateRequest generate(String llm, String prompt, Options options) {
        GenerateRequest.Builder request = GenerateRequest.newBuilder().setLlm(llm);
        request.setPrompt(Check.text(prompt, "prompt"));
        options.applyTo(request);
        return request.build();
    }

    /** Encodes a conversation and its options. */
    static GenerateRequest generate(String llm, List<ChatMessage> messages, Options options) {
        GenerateRequest.Builder request = GenerateRequest.newBuilder().setLlm(llm);
        Chat.Builder chat = request.getChatBuilder();
        for (ChatMessage message : messages) {
            chat.addMessages(message(message, "chat.messages[" + chat.getMessagesCount() + "]"));
        }
        options.applyTo(request);
        return request.build();
    }

    /** Takes from a request for an answer the parts that have tokens to count. */
    static CountTokensRequest countTokens(GenerateRequest generateRequest) {
        CountTokensRequest.Builder request = CountTokensRequest.newBuilder().setLlm(generateRequest.getLlm());
        switch (generateRequest.getInputCase()) {
            case PROMPT -> request.setPrompt(generateRequest.getPrompt());
            case CHAT -> request.setChat(generateRequest.getChat());
            case INPUT_NOT_SET -> throw new IllegalStateException("a request always has an input");
        }
        if (generateRequest.hasSystemPrompt()) {
            request.setSystemPrompt(generateRequest.getSystemPrompt());
        }
        if (generateRequest.getParameters().hasModel()) {
            request.setModel(generateRequest.getParameters().getModel());
        }
        return request.addAllTools(generateRequest.getToolsList()).build();
    }

    private static io.abstractllm.v1.ChatMessage message(ChatMessage message, String path) {
        io.abstractllm.v1.ChatMessage.Builder encoded = io.abstractllm.v1.ChatMessage.newBuilder();
        encoded.setRoleValue(message.role().number());
        for (Part part : message.parts()) {
            encoded.addParts(part(part, path + ".parts[" + encoded.getPartsCount() + "]"));
        }
        return encoded.build();
    }

    private static io.abstractllm.v1.Part part(Part part, String path) {
        io.abstractllm.v1.Part.Builder encoded = io.abstractllm.v1.Part.newBuilder();
        if (part instanceof Part.Text text) {
            encoded.setText(Check.text(text.text(), path + ".text"));
        } else if (part instanceof Part.Image image) {
            encoded.setImage(Image.newBuilder()
                    .setData(image.data())
                    .setMimeType(Check.text(image.mimeType(), path + ".image.mime_type")));
        } else if (part instanceof Part.ToolCall call) {
            encoded.setToolCall(ToolCall.newBuilder()
                    .setId(Check.text(call.id(), path + ".tool_call.id"))
                    .setName(Check.text(call.name(), path + ".tool_call.name"))
                    .setArgumentsJson(Check.text(call.argumentsJson(), path + ".tool_call.arguments_json")));
        } else if (part instanceof Part.ToolResult result) {
            encoded.setToolResult(ToolResult.newBuilder()
                    .setToolCallId(Check.text(result.toolCallId(), path + ".tool_result.tool_call_id"))
                    .setContent(Check.text(result.content(), path + ".tool_result.content"))
                    .setIsError(result.isError()));
        } else if (part instanceof Part.Reasoning reasoning) {
            encoded.setReasoning(
                    Reasoning.newBuilder().setText(Check.text(reasoning.text(), path + ".reasoning.text")));
        }
        return encoded.setProviderState(part.providerState()).build();
    }
}
