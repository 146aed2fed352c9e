package io.abstractllm;

import java.util.List;
import java.util.Optional;

/** One event of an answer as it comes: {@link Started} first, {@link Finished} last. */
public sealed interface Event {
    /**
     * The start of an answer, which says who answers; it comes with the LLM's first event.
     *
     * @param id the answer's id
     * @param llm the name of the LLM that answers
     * @param provider its provider
     * @param model its model
     * @param droppedParameters the paths of what was left out under {@link ParametersPolicy#DROP_UNSUPPORTED}
     */
    record Started(String id, String llm, String provider, String model, List<String> droppedParameters)
            implements Event {}

    /**
     * A piece of the answer's text. The joined pieces are the answer.
     *
     * @param text the piece
     * @param logprobs one entry for each of its tokens, where they were asked for
     */
    record TextDelta(String text, List<TokenLogprob> logprobs) implements Event {}

    /**
     * A piece of what the model thinks before it answers.
     *
     * @param text the piece
     */
    record ReasoningDelta(String text) implements Event {}

    /**
     * A piece of a tool call.
     *
     * @param index which of the answer's calls, counted from 0
     * @param id the call's id; set in its first piece
     * @param name the tool's name; set in its first piece
     * @param argumentsFragment more of the arguments' JSON
     */
    record ToolCallDelta(int index, String id, String name, String argumentsFragment) implements Event {}

    /**
     * The end of an answer; sent exactly once.
     *
     * @param finishReason the reason of its end
     * @param stopSequence the stop text that ended it; empty unless {@link FinishReason#STOP_SEQUENCE}
     * @param usage the tokens that it cost
     * @param attempts the attempts at it, in order; the last one gave it
     * @param timing the times that it took
     * @param message the whole answer as a message, to be put into the next turn's conversation
     */
    record Finished(
            FinishReason finishReason,
            String stopSequence,
            Usage usage,
            List<Attempt> attempts,
            Timing timing,
            Optional<ChatMessage> message)
            implements Event {}
}
