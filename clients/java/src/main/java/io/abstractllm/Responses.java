package io.abstractllm;

import com.google.protobuf.Timestamp;
import io.abstractllm.v1.ClearCacheResponse;
import io.abstractllm.v1.GenerateResponse;
import io.abstractllm.v1.Llm;
import io.abstractllm.v1.LoadModelResponse;
import io.abstractllm.v1.PullModelResponse;
import io.abstractllm.v1.StreamGenerateResponse;
import io.abstractllm.v1.UnloadModelResponse;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.OptionalLong;

/** Decodes the contract's responses to the client's values. */
final class Responses {
    private Responses() {}

    static Completion completion(GenerateResponse answer) {
        return new Completion(
                answer.getId(),
                answer.getText(),
                message(answer.getMessage()),
                new FinishReason(answer.getFinishReasonValue()),
                answer.getStopSequence(),
                usage(answer.getUsage()),
                answer.getLlm(),
                answer.getProvider(),
                answer.getModel(),
                attempts(answer.getAttemptsList()),
                timing(answer.getTiming()),
                logprobs(answer.getLogprobsList()),
                List.copyOf(answer.getDroppedParametersList()));
    }

    /** Decodes an event; null for a kind that only newer contracts know. */
    static Event event(StreamGenerateResponse response) {
        return switch (response.getEventCase()) {
            case STARTED -> started(response.getStarted());
            case TEXT_DELTA ->
                new Event.TextDelta(
                        response.getTextDelta().getText(),
                        logprobs(response.getTextDelta().getLogprobsList()));
            case REASONING_DELTA ->
                new Event.ReasoningDelta(response.getReasoningDelta().getText());
            case TOOL_CALL_DELTA -> toolCallDelta(response.getToolCallDelta());
            case FINISHED -> finished(response.getFinished());
            case EVENT_NOT_SET -> null;
        };
    }

    private static Event started(io.abstractllm.v1.Started started) {
        return new Event.Started(
                started.getId(),
                started.getLlm(),
                started.getProvider(),
                started.getModel(),
                List.copyOf(started.getDroppedParametersList()));
    }

    private static Event toolCallDelta(io.abstractllm.v1.ToolCallDelta delta) {
        return new Event.ToolCallDelta(delta.getIndex(), delta.getId(), delta.getName(), delta.getArgumentsFragment());
    }

    private static Event finished(io.abstractllm.v1.Finished finished) {
        return new Event.Finished(
                new FinishReason(finished.getFinishReasonValue()),
                finished.getStopSequence(),
                usage(finished.getUsage()),
                attempts(finished.getAttemptsList()),
                timing(finished.getTiming()),
                finished.hasMessage() ? Optional.of(message(finished.getMessage())) : Optional.empty());
    }

    static Capabilities capabilities(io.abstractllm.v1.Capabilities capabilities) {
        return new Capabilities(
                capabilities.getStreaming(),
                capabilities.getSystemPrompt(),
                capabilities.getChat(),
                capabilities.getTools(),
                capabilities.getImageInput(),
                capabilities.getJsonObject(),
                capabilities.getJsonSchema(),
                capabilities.getRegex(),
                capabilities.getGrammar(),
                capabilities.getLogprobs(),
                capabilities.getSeed(),
                capabilities.getTokenCounting(),
                List.copyOf(capabilities.getParametersList()),
                List.copyOf(capabilities.getProviderOptionsList()),
                optional(capabilities.hasContextWindow(), capabilities.getContextWindow()),
                optional(capabilities.hasMaxOutputTokens(), capabilities.getMaxOutputTokens()),
                capabilities.getQuantization(),
                capabilities.getDevice(),
                capabilities.hasMaxConcurrentRequests()
                        ? OptionalInt.of(capabilities.getMaxConcurrentRequests())
                        : OptionalInt.empty());
    }

    static LlmInfo llmInfo(Llm llm) {
        return new LlmInfo(
                llm.getName(),
                llm.getProvider(),
                llm.getModel(),
                llm.getIsDefault(),
                new LlmState(llm.getStateValue()),
                llm.getStateReason(),
                llm.getDevice(),
                optional(llm.hasMemoryBytes(), llm.getMemoryBytes()),
                llm.getRunning(),
                llm.getQueued());
    }

    static CachedModel cachedModel(io.abstractllm.v1.CachedModel model) {
        return new CachedModel(
                model.getName(),
                List.copyOf(model.getRevisionsList()),
                model.getSizeBytes(),
                model.hasLastUsedTime() ? Optional.of(instant(model.getLastUsedTime())) : Optional.empty(),
                model.hasLastModifiedTime() ? Optional.of(instant(model.getLastModifiedTime())) : Optional.empty(),
                List.copyOf(model.getUsedByList()),
                model.getPartial());
    }

    static ClearedModels clearedModels(ClearCacheResponse cleared) {
        return new ClearedModels(List.copyOf(cleared.getRemovedList()), cleared.getFreedBytes());
    }

    static PullProgress pullProgress(PullModelResponse report) {
        return new PullProgress(
                report.getFile(),
                report.getFileBytesDone(),
                optional(report.hasFileBytesTotal(), report.getFileBytesTotal()),
                report.getBytesDone(),
                optional(report.hasBytesTotal(), report.getBytesTotal()),
                report.getDone());
    }

    static LoadProgress loadProgress(LoadModelResponse report) {
        return new LoadProgress(
                new LlmState(report.getStateValue()),
                report.getPhase(),
                report.hasFraction() ? OptionalDouble.of(report.getFraction()) : OptionalDouble.empty());
    }

    static UnloadProgress unloadProgress(UnloadModelResponse report) {
        return new UnloadProgress(new LlmState(report.getStateValue()), report.getRunning());
    }

    private static ChatMessage message(io.abstractllm.v1.ChatMessage message) {
        List<Part> parts = message.getPartsList().stream()
                .map(Responses::part)
                .filter(Objects::nonNull)
                .toList();
        return new ChatMessage(new Role(message.getRoleValue()), parts);
    }

    /** Decodes a part; null for a kind that only newer contracts know. */
    private static Part part(io.abstractllm.v1.Part part) {
        var state = part.getProviderState();
        return switch (part.getPartCase()) {
            case TEXT -> new Part.Text(part.getText(), state);
            case IMAGE ->
                new Part.Image(part.getImage().getData(), part.getImage().getMimeType(), state);
            case TOOL_CALL ->
                new Part.ToolCall(
                        part.getToolCall().getId(),
                        part.getToolCall().getName(),
                        part.getToolCall().getArgumentsJson(),
                        state);
            case TOOL_RESULT ->
                new Part.ToolResult(
                        part.getToolResult().getToolCallId(),
                        part.getToolResult().getContent(),
                        part.getToolResult().getIsError(),
                        state);
            case REASONING -> new Part.Reasoning(part.getReasoning().getText(), state);
            case PART_NOT_SET -> null;
        };
    }

    private static Usage usage(io.abstractllm.v1.Usage usage) {
        return new Usage(
                optional(usage.hasInputTokens(), usage.getInputTokens()),
                optional(usage.hasOutputTokens(), usage.getOutputTokens()),
                optional(usage.hasCachedInputTokens(), usage.getCachedInputTokens()),
                optional(usage.hasReasoningTokens(), usage.getReasoningTokens()));
    }

    private static Timing timing(io.abstractllm.v1.Timing timing) {
        return new Timing(
                timing.hasQueued() ? Optional.of(duration(timing.getQueued())) : Optional.empty(),
                timing.hasFirstToken() ? Optional.of(duration(timing.getFirstToken())) : Optional.empty(),
                timing.hasTotal() ? Optional.of(duration(timing.getTotal())) : Optional.empty());
    }

    private static List<Attempt> attempts(List<io.abstractllm.v1.Attempt> attempts) {
        return attempts.stream()
                .map(attempt -> new Attempt(
                        attempt.getLlm(),
                        attempt.getProvider(),
                        attempt.getModel(),
                        reason(attempt.getErrorReasonValue()),
                        attempt.getMessage(),
                        duration(attempt.getDuration())))
                .toList();
    }

    private static Optional<ErrorReason> reason(int number) {
        return number == 0
                ? Optional.empty()
                : Optional.of(new ErrorReason(EnumNames.name(io.abstractllm.v1.ErrorReason.getDescriptor(), number)));
    }

    private static List<TokenLogprob> logprobs(List<io.abstractllm.v1.TokenLogprob> entries) {
        return entries.stream()
                .map(entry -> new TokenLogprob(
                        entry.getTokenId(),
                        entry.getToken(),
                        entry.getRawBytes(),
                        entry.getLogprob(),
                        entry.getTopList().stream()
                                .map(top -> new TokenLogprob.Top(
                                        top.getTokenId(), top.getToken(), top.getRawBytes(), top.getLogprob()))
                                .toList()))
                .toList();
    }

    static Duration duration(com.google.protobuf.Duration duration) {
        return Duration.ofSeconds(duration.getSeconds(), duration.getNanos());
    }

    private static Instant instant(Timestamp time) {
        return Instant.ofEpochSecond(time.getSeconds(), time.getNanos());
    }

    private static OptionalLong optional(boolean known, long value) {
        return known ? OptionalLong.of(value) : OptionalLong.empty();
    }
}
