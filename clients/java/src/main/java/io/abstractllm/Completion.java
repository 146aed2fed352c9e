package io.abstractllm;

import java.util.List;
import java.util.stream.Collectors;

/**
 * A whole answer.
 *
 * @param id the answer's id, made by the server
 * @param text the answer's text parts, joined; without reasoning and tool calls
 * @param message the answer as a message, ready to be appended to the conversation
 * @param finishReason the reason of its end
 * @param stopSequence the stop text that ended it; empty unless {@link FinishReason#STOP_SEQUENCE}
 * @param usage the tokens that it cost
 * @param llm the name of the LLM that answered
 * @param provider its provider
 * @param model its model
 * @param attempts the attempts at it, in order; the last one gave it
 * @param timing the times that it took
 * @param logprobs one entry for each generated token, where they were asked for
 * @param droppedParameters the paths of what was left out under {@link ParametersPolicy#DROP_UNSUPPORTED}
 */
public record Completion(
        String id,
        String text,
        ChatMessage message,
        FinishReason finishReason,
        String stopSequence,
        Usage usage,
        String llm,
        String provider,
        String model,
        List<Attempt> attempts,
        Timing timing,
        List<TokenLogprob> logprobs,
        List<String> droppedParameters) {
    /**
     * The tool calls that the model asks for.
     *
     * @return the calls, in order
     */
    public List<Part.ToolCall> toolCalls() {
        return message.parts().stream()
                .filter(Part.ToolCall.class::isInstance)
                .map(Part.ToolCall.class::cast)
                .toList();
    }

    /**
     * The model's thinking, where the provider shows it.
     *
     * @return the reasoning parts, joined
     */
    public String reasoning() {
        return message.parts().stream()
                .filter(Part.Reasoning.class::isInstance)
                .map(part -> ((Part.Reasoning) part).text())
                .collect(Collectors.joining());
    }
}
