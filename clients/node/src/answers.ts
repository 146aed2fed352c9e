/**
 * The answers of a server: events, whole answers, and the states of its LLMs. All of it is plain data.
 *
 * Spans are seconds, counts and bytes are numbers, and `undefined` means "not known", never zero.
 */

import type { ErrorReason, FinishReason, LlmState, Quantization } from "./enums.js";
import type { GenerationParameters } from "./generation-parameters.js";
import type { JsonObject } from "./json.js";
import type { ChatMessage } from "./messages.js";

/** One of the likeliest tokens at a position. */
export interface TopLogprob {
  tokenId: number;
  token: string;
  tokenBytes: Uint8Array;
  /** The natural logarithm of the probability. */
  logprob: number;
}

/** The token that was chosen at a position, and the likeliest ones. */
export interface TokenLogprob extends TopLogprob {
  top: TopLogprob[];
}

/** The tokens of a request; `undefined` where the provider does not count them. */
export interface Usage {
  inputTokens: number | undefined;
  outputTokens: number | undefined;
  cachedInputTokens: number | undefined;
  reasoningTokens: number | undefined;
}

/** Seconds from the request's arrival: spent waiting, to the first token, to the end. */
export interface Timing {
  queued: number | undefined;
  firstToken: number | undefined;
  total: number | undefined;
}

/** One attempt to answer a request. */
export interface Attempt {
  llm: string;
  provider: string;
  model: string;
  /** The reason of its failure; `undefined` for the attempt that answered. */
  errorReason: ErrorReason | number | undefined;
  message: string;
  /** Seconds. */
  duration: number;
}

/** The first event of a stream, sent with the LLM's first sign of an answer. */
export interface Started {
  type: "started";
  id: string;
  llm: string;
  provider: string;
  model: string;
  /** The paths of what was left out under `drop_unsupported`, such as `parameters.top_k`. */
  droppedParameters: string[];
}

/** A piece of the answer's text. The joined pieces are the answer. */
export interface TextDelta {
  type: "text_delta";
  text: string;
  logprobs: TokenLogprob[];
}

/** A piece of the model's thinking before its answer. */
export interface ReasoningDelta {
  type: "reasoning_delta";
  text: string;
}

/** A piece of a tool call; `id` and `name` come with the first piece of each `index`. */
export interface ToolCallDelta {
  type: "tool_call_delta";
  index: number;
  id: string;
  name: string;
  argumentsFragment: string;
}

/** The last event of a stream, sent exactly once. */
export interface Finished {
  type: "finished";
  finishReason: FinishReason | number;
  stopSequence: string;
  usage: Usage;
  attempts: Attempt[];
  timing: Timing;
  /** The whole answer as a message, to be put into the next turn's conversation. */
  message: ChatMessage | undefined;
}

/** One event of an answer as it comes. */
export type Event = Started | TextDelta | ReasoningDelta | ToolCallDelta | Finished;

/** A whole answer: the stream of events, folded. */
export interface Completion {
  id: string;
  text: string;
  /** The answer as a message, to be put into the next turn's conversation. */
  message: ChatMessage;
  finishReason: FinishReason | number;
  stopSequence: string;
  usage: Usage;
  llm: string;
  provider: string;
  model: string;
  attempts: Attempt[];
  timing: Timing;
  logprobs: TokenLogprob[];
  droppedParameters: string[];
}

/** The capabilities of an LLM; a request can be checked against them before it is sent. */
export interface Capabilities {
  streaming: boolean;
  systemPrompt: boolean;
  chat: boolean;
  tools: boolean;
  imageInput: boolean;
  jsonObject: boolean;
  jsonSchema: boolean;
  regex: boolean;
  grammar: boolean;
  logprobs: boolean;
  seed: boolean;
  tokenCounting: boolean;
  /** The generation parameters that the LLM supports, in the contract's names, such as `top_p`. */
  parameters: string[];
  /** The keys that a request's `providerOptions` may hold. */
  providerOptions: string[];
  /** The most tokens of prompt and answer together. */
  contextWindow: number | undefined;
  maxOutputTokens: number | undefined;
  quantization: string;
  device: string;
  maxConcurrentRequests: number | undefined;
}

/** A named LLM of a server, and its state. */
export interface LlmInfo {
  name: string;
  provider: string;
  model: string;
  isDefault: boolean;
  state: LlmState | number;
  stateReason: string;
  device: string;
  memoryBytes: number | undefined;
  running: number;
  queued: number;
}

/** A model in the cache on the server's disk. */
export interface CachedModel {
  name: string;
  revisions: string[];
  sizeBytes: number;
  lastUsedTime: Date | undefined;
  lastModifiedTime: Date | undefined;
  /** The LLMs that have it loaded, or are loading it. */
  usedBy: string[];
  /** True while a download is not complete. */
  partial: boolean;
}

/** The models that were deleted from a cache; on a dry run, those that would be. */
export interface ClearedModels {
  /** The names of the models. */
  removed: string[];
  freedBytes: number;
}

/** The progress of a download. */
export interface PullProgress {
  /** The file that this report is about; empty where it is about the whole download. */
  file: string;
  fileBytesDone: number;
  fileBytesTotal: number | undefined;
  bytesDone: number;
  bytesTotal: number | undefined;
  /** True in the last report: the model is whole. */
  done: boolean;
}

/** The progress of loading a model. */
export interface LoadProgress {
  /** `ready` in the last report. */
  state: LlmState | number;
  phase: string;
  /** From 0 to 1. */
  fraction: number | undefined;
}

/** The progress of unloading a model. */
export interface UnloadProgress {
  /** `unloaded` in the last report. */
  state: LlmState | number;
  /** Requests that still run. */
  running: number;
}

/** The configuration of an LLM on the server: flat, without unset keys. */
export interface LlmConfig extends GenerationParameters {
  systemPrompt?: string | undefined;
  /** The most seconds that a request may take. */
  timeout?: number | undefined;
  maxRetries?: number | undefined;
  /** Seconds that an idle local model stays in memory. */
  keepAlive?: number | undefined;
  quantization?: Quantization | number | undefined;
  providerOptions?: JsonObject | undefined;
}

/** New values of a configuration; `null` clears a key, and spans may be texts such as `"90s"`, `"10m"` and `"1h"`. */
export type LlmConfigChanges = {
  [Key in keyof LlmConfig]?: LlmConfig[Key] | null | (Key extends "timeout" | "keepAlive" ? string : never);
};

/** A configuration, and the etag that identifies this state of it. */
export interface VersionedConfig {
  config: LlmConfig;
  /** The etag for `setConfig`, so that a change made by somebody else meanwhile is not overwritten. */
  etag: string;
}
