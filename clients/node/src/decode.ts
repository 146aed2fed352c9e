/** The contract's answers -> the client's values. */

import type * as answers from "./answers.js";
import { errorReasons, finishReasons, llmStates, roles } from "./enum-codec.js";
import * as pb from "./gen/abstractllm_api/v1/generation.js";
import type * as pbModels from "./gen/abstractllm_api/v1/models.js";
import type { ChatMessage, Part } from "./messages.js";
import { count, date, optionalCount, optionalSeconds, ownBytes, seconds } from "./wire.js";

/** Decodes a whole answer. */
export function completion(response: pb.GenerateResponse): answers.Completion {
  return {
    id: response.id,
    text: response.text,
    message: message(response.message ?? pb.ChatMessage.create()),
    finishReason: finishReasons.decode(response.finishReason),
    stopSequence: response.stopSequence,
    usage: usage(response.usage),
    llm: response.llm,
    provider: response.provider,
    model: response.model,
    attempts: response.attempts.map(attempt),
    timing: timing(response.timing),
    logprobs: response.logprobs.map(tokenLogprob),
    droppedParameters: response.droppedParameters,
  };
}

/** Decodes an event; `undefined` for a kind that only newer contracts know. */
export function event({ event }: pb.StreamGenerateResponse): answers.Event | undefined {
  switch (event?.$case) {
    case "started":
      return { type: "started", ...event.value };
    case "textDelta":
      return { type: "text_delta", text: event.value.text, logprobs: event.value.logprobs.map(tokenLogprob) };
    case "reasoningDelta":
      return { type: "reasoning_delta", ...event.value };
    case "toolCallDelta":
      return { type: "tool_call_delta", ...event.value };
    case "finished":
      return {
        type: "finished",
        finishReason: finishReasons.decode(event.value.finishReason),
        stopSequence: event.value.stopSequence,
        usage: usage(event.value.usage),
        attempts: event.value.attempts.map(attempt),
        timing: timing(event.value.timing),
        message: event.value.message && message(event.value.message),
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
    state: llmStates.decode(llm.state),
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

/** Decodes what was deleted. */
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
  return { ...report, state: llmStates.decode(report.state), fraction: report.fraction };
}

/** Decodes an unload's progress. */
export function unloadProgress(report: pbModels.UnloadModelResponse): answers.UnloadProgress {
  return { ...report, state: llmStates.decode(report.state) };
}

function message(found: pb.ChatMessage): ChatMessage {
  return { role: roles.decode(found.role), parts: found.parts.map(part).filter((known) => known !== undefined) };
}

function part(found: pb.Part): Part | undefined {
  const state = found.providerState.length === 0 ? {} : { providerState: ownBytes(found.providerState) };
  switch (found.part?.$case) {
    case "text":
      return { type: "text", text: found.part.value, ...state };
    case "image":
      return { type: "image", data: ownBytes(found.part.value.data), mimeType: found.part.value.mimeType, ...state };
    case "toolCall":
      return { type: "tool_call", ...found.part.value, ...state };
    case "toolResult":
      return { type: "tool_result", ...found.part.value, ...state };
    case "reasoning":
      return { type: "reasoning", ...found.part.value, ...state };
  }
  return undefined;
}

function usage(found: pb.Usage | undefined): answers.Usage {
  return {
    inputTokens: optionalCount(found?.inputTokens, "usage.input_tokens"),
    outputTokens: optionalCount(found?.outputTokens, "usage.output_tokens"),
    cachedInputTokens: optionalCount(found?.cachedInputTokens, "usage.cached_input_tokens"),
    reasoningTokens: optionalCount(found?.reasoningTokens, "usage.reasoning_tokens"),
  };
}

function timing(found: pb.Timing | undefined): answers.Timing {
  return {
    queued: optionalSeconds(found?.queued),
    firstToken: optionalSeconds(found?.firstToken),
    total: optionalSeconds(found?.total),
  };
}

function attempt(found: pb.Attempt): answers.Attempt {
  return {
    llm: found.llm,
    provider: found.provider,
    model: found.model,
    errorReason: found.errorReason === 0 ? undefined : errorReasons.decode(found.errorReason),
    message: found.message,
    duration: found.duration === undefined ? 0 : seconds(found.duration),
  };
}

function tokenLogprob(found: pb.TokenLogprob): answers.TokenLogprob {
  return { ...topLogprob(found), top: found.top.map(topLogprob) };
}

function topLogprob(found: pb.TopLogprob): answers.TopLogprob {
  return {
    tokenId: found.tokenId,
    token: found.token,
    tokenBytes: ownBytes(found.tokenBytes),
    logprob: found.logprob,
  };
}
