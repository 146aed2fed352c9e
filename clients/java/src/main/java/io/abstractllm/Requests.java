package io.abstractllm;

import io.abstractllm.v1.Chat;
import io.abstractllm.v1.CountTokensRequest;
import io.abstractllm.v1.GenerateRequest;
import io.abstractllm.v1.Image;
import io.abstractllm.v1.Reasoning;
import io.abstractllm.v1.ToolCall;
import io.abstractllm.v1.ToolResult;
import java.util.List;

/** The arguments of a call to the contract's requests; whether values are in range is the server's to say. */
final class Requests {
    private Requests() {}

    /** A call of {@code generate} with a prompt. */
    static GenerateRequest generate(String llm, String prompt, Options options) {
        GenerateRequest.Builder request = GenerateRequest.newBuilder().setLlm(llm);
        request.setPrompt(Check.text(prompt, "prompt"));
        options.applyTo(request);
        return request.build();
    }

    /** A call of {@code generate} with a conversation. */
    static GenerateRequest generate(String llm, List<ChatMessage> messages, Options options) {
        GenerateRequest.Builder request = GenerateRequest.newBuilder().setLlm(llm);
        Chat.Builder chat = request.getChatBuilder();
        for (ChatMessage message : messages) {
            chat.addMessages(message(message, "chat.messages[" + chat.getMessagesCount() + "]"));
        }
        options.applyTo(request);
        return request.build();
    }

    /** What of a call of {@code generate} has tokens to count. */
    static CountTokensRequest countTokens(GenerateRequest asked) {
        CountTokensRequest.Builder request = CountTokensRequest.newBuilder().setLlm(asked.getLlm());
        switch (asked.getInputCase()) {
            case PROMPT -> request.setPrompt(asked.getPrompt());
            case CHAT -> request.setChat(asked.getChat());
            case INPUT_NOT_SET -> throw new IllegalStateException("a request always has an input");
        }
        if (asked.hasSystemPrompt()) {
            request.setSystemPrompt(asked.getSystemPrompt());
        }
        if (asked.getParameters().hasModel()) {
            request.setModel(asked.getParameters().getModel());
        }
        return request.addAllTools(asked.getToolsList()).build();
    }

    private static io.abstractllm.v1.ChatMessage message(ChatMessage message, String path) {
        io.abstractllm.v1.ChatMessage.Builder found = io.abstractllm.v1.ChatMessage.newBuilder();
        found.setRoleValue(message.role().number());
        for (Part part : message.parts()) {
            found.addParts(part(part, path + ".parts[" + found.getPartsCount() + "]"));
        }
        return found.build();
    }

    private static io.abstractllm.v1.Part part(Part part, String path) {
        io.abstractllm.v1.Part.Builder found = io.abstractllm.v1.Part.newBuilder();
        if (part instanceof Part.Text text) {
            found.setText(Check.text(text.text(), path + ".text"));
        } else if (part instanceof Part.Image image) {
            found.setImage(Image.newBuilder()
                    .setData(image.data())
                    .setMimeType(Check.text(image.mimeType(), path + ".image.mime_type")));
        } else if (part instanceof Part.ToolCall call) {
            found.setToolCall(ToolCall.newBuilder()
                    .setId(Check.text(call.id(), path + ".tool_call.id"))
                    .setName(Check.text(call.name(), path + ".tool_call.name"))
                    .setArgumentsJson(Check.text(call.argumentsJson(), path + ".tool_call.arguments_json")));
        } else if (part instanceof Part.ToolResult result) {
            found.setToolResult(ToolResult.newBuilder()
                    .setToolCallId(Check.text(result.toolCallId(), path + ".tool_result.tool_call_id"))
                    .setContent(Check.text(result.content(), path + ".tool_result.content"))
                    .setIsError(result.isError()));
        } else if (part instanceof Part.Reasoning reasoning) {
            found.setReasoning(Reasoning.newBuilder().setText(Check.text(reasoning.text(), path + ".reasoning.text")));
        }
        return found.setProviderState(part.providerState()).build();
    }
}
