/** The contract's answers -> the client's values. */

import type * as answers from "./answers.js";
import { enumCodecs } from "./enum-codecs.js";
import * as pb from "./gen/abstractllm_api/v1/generation.js";
import type * as pbModels from "./gen/abstractllm_api/v1/models.js";
import type { ChatMessage, Part } from "./messages.js";
import { copyOf, count, date, optionalCount, optionalSeconds, seconds } from "./wire.js";

/** Decodes a whole answer. */
export function completion(response: pb.GenerateResponse): answers.Completion {
  return {
    id: response.id,
    text: response.text,
    message: decodeMessage(response.message ?? pb.ChatMessage.create()),
    finishReason: enumCodecs.FinishReason.decode(response.finishReason),
    stopSequence: response.stopSequence,
    usage: decodeUsage(response.usage),
    llm: response.llm,
    provider: response.provider,
    model: response.model,
    attempts: response.attempts.map(decodeAttempt),
    timing: decodeTiming(response.timing),
    logprobs: response.logprobs.map(decodeTokenLogprob),
    droppedParameters: response.droppedParameters,
  };
}

/** Decodes an event; `undefined` for a kind that this client does not know. */
export function event({ event }: pb.StreamGenerateResponse): answers.Event | undefined {
  switch (event?.$case) {
    case "started":
      return { type: "started", ...event.value };
    case "textDelta":
      return { type: "text_delta", text: event.value.text, logprobs: event.value.logprobs.map(decodeTokenLogprob) };
    case "reasoningDelta":
      return { type: "reasoning_delta", ...event.value };
    case "toolCallDelta":
      return { type: "tool_call_delta", ...event.value };
    case "finished":
      return {
        type: "finished",
        finishReason: enumCodecs.FinishReason.decode(event.value.finishReason),
        stopSequence: event.value.stopSequence,
        usage: decodeUsage(event.value.usage),
        attempts: event.value.attempts.map(decodeAttempt),
        timing: decodeTiming(event.value.timing),
        message: event.value.message && decodeMessage(event.value.message),
      };
  }
  return undefined;
}

/** Decodes capabilities. */
export function capabilities(response: pbModels.Capabilities): answers.Capabilities {
  return {
    ...response,
    contextWindow: optionalCount(response.contextWindow, "context_window"),
    maxOutputTokens: optionalCount(response.maxOutputTokens, "max_output_tokens"),
    maxConcurrentRequests: response.maxConcurrentRequests,
  };
}

/** Decodes an LLM's state. */
export function llmInfo(llm: pbModels.Llm): answers.LlmInfo {
  return {
    ...llm,
    state: enumCodecs.LlmState.decode(llm.state),
    memoryBytes: optionalCount(llm.memoryBytes, "memory_bytes"),
  };
}

/** Decodes a model of the server's cache. */
export function cachedModel(model: pbModels.CachedModel): answers.CachedModel {
  return {
    ...model,
    sizeBytes: count(model.sizeBytes, "size_bytes"),
    lastUsedTime: date(model.lastUsedTime),
    lastModifiedTime: date(model.lastModifiedTime),
  };
}

/** Decodes the models that were deleted. */
export function clearedModels(response: pbModels.ClearCacheResponse): answers.ClearedModels {
  return { ...response, freedBytes: count(response.freedBytes, "freed_bytes") };
}

/** Decodes a download's progress. */
export function pullProgress(report: pbModels.PullModelResponse): answers.PullProgress {
  return {
    ...report,
    fileBytesDone: count(report.fileBytesDone, "file_bytes_done"),
    fileBytesTotal: optionalCount(report.fileBytesTotal, "file_bytes_total"),
    bytesDone: count(report.bytesDone, "bytes_done"),
    bytesTotal: optionalCount(report.bytesTotal, "bytes_total"),
  };
}

/** Decodes a load's progress. */
export function loadProgress(report: pbModels.LoadModelResponse): answers.LoadProgress {
  return { ...report, state: enumCodecs.LlmState.decode(report.state), fraction: report.fraction };
}

/** Decodes an unload's progress. */
export function unloadProgress(report: pbModels.UnloadModelResponse): answers.UnloadProgress {
  return { ...report, state: enumCodecs.LlmState.decode(report.state) };
}

function decodeMessage(message: pb.ChatMessage): ChatMessage {
  return {
    role: enumCodecs.Role.decode(message.role),
    parts: message.parts.map(decodePart).filter((part) => part !== undefined),
  };
}

function decodePart({ part, providerState }: pb.Part): Part | undefined {
  const state = providerState.length === 0 ? {} : { providerState: copyOf(providerState) };
  switch (part?.$case) {
    case "text":
      return { type: "text", text: part.value, ...state };
    case "image":
      return { type: "image", data: copyOf(part.value.data), mimeType: part.value.mimeType, ...state };
    case "toolCall":
      return { type: "tool_call", ...part.value, ...state };
    case "toolResult":
      return { type: "tool_result", ...part.value, ...state };
    case "reasoning":
      return { type: "reasoning", ...part.value, ...state };
  }
  return undefined;
}

function decodeUsage(usage: pb.Usage | undefined): answers.Usage {
  return {
    inputTokens: optionalCount(usage?.inputTokens, "usage.input_tokens"),
    outputTokens: optionalCount(usage?.outputTokens, "usage.output_tokens"),
    cachedInputTokens: optionalCount(usage?.cachedInputTokens, "usage.cached_input_tokens"),
    reasoningTokens: optionalCount(usage?.reasoningTokens, "usage.reasoning_tokens"),
  };
}

function decodeTiming(timing: pb.Timing | undefined): answers.Timing {
  return {
    queued: optionalSeconds(timing?.queued),
    firstToken: optionalSeconds(timing?.firstToken),
    total: optionalSeconds(timing?.total),
  };
}

function decodeAttempt(attempt: pb.Attempt): answers.Attempt {
  return {
    llm: attempt.llm,
    provider: attempt.provider,
    model: attempt.model,
    errorReason: attempt.errorReason === 0 ? undefined : enumCodecs.ErrorReason.decode(attempt.errorReason),
    message: attempt.message,
    duration: attempt.duration === undefined ? 0 : seconds(attempt.duration),
  };
}

function decodeTokenLogprob(logprob: pb.TokenLogprob): answers.TokenLogprob {
  return { ...decodeTopLogprob(logprob), top: logprob.top.map(decodeTopLogprob) };
}

function decodeTopLogprob(logprob: pb.TopLogprob): answers.TopLogprob {
  return {
    tokenId: logprob.tokenId,
    token: logprob.token,
    tokenBytes: copyOf(logprob.tokenBytes),
    logprob: logprob.logprob,
  };
}
