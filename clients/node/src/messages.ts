/** What goes into a request: messages and their parts, tools, answer formats. All of it is plain data. */

import type { ParametersPolicy, ReasoningEffort, Role, ToolChoiceMode } from "./enums.js";

/** Text in a chat message. */
export interface TextPart {
  type: "text";
  text: string;
  /** Opaque bytes of the provider, to be returned unchanged with the part in the next turn. */
  providerState?: Uint8Array | undefined;
}

/** An image in a chat message, as bytes; URLs are never fetched. */
export interface ImagePart {
  type: "image";
  data: Uint8Array;
  /** For example `image/png`. */
  mimeType: string;
  providerState?: Uint8Array | undefined;
}

/** The model's request to call a tool. */
export interface ToolCallPart {
  type: "tool_call";
  id: string;
  name: string;
  /** A JSON object, as the model wrote it. */
  argumentsJson: string;
  providerState?: Uint8Array | undefined;
}

/** What a tool returned, sent back to the model. */
export interface ToolResultPart {
  type: "tool_result";
  toolCallId: string;
  content: string;
  isError?: boolean | undefined;
  providerState?: Uint8Array | undefined;
}

/** What a reasoning model thought before it answered. */
export interface ReasoningPart {
  type: "reasoning";
  text: string;
  providerState?: Uint8Array | undefined;
}

/** One piece of a message. */
export type Part = TextPart | ImagePart | ToolCallPart | ToolResultPart | ReasoningPart;

/** One turn of a conversation. */
export interface ChatMessage {
  role: Role | number;
  parts: readonly Part[];
}

/** A message of text alone, in short. */
export interface TextMessage {
  role: Role | number;
  content: string;
}

/** What is asked: text, or a conversation. */
export type Prompt = string | readonly (ChatMessage | TextMessage)[];

/** A function that the model may ask to be called. */
export interface Tool {
  name: string;
  description?: string | undefined;
  /** A JSON Schema object for the arguments, as JSON text; `{}` where absent. */
  parametersJsonSchema?: string | undefined;
}

/** A rule, or the name of the one tool that must be called. */
export type ToolChoice = ToolChoiceMode | number | { name: string };

/** The form that the answer must have. */
export type ResponseFormat =
  /** A JSON object. */
  | { type: "json_object" }
  /** JSON that follows a schema, given as JSON text. */
  | { type: "json_schema"; schemaJson: string; name?: string | undefined; strict?: boolean | undefined }
  /** Text that matches a regular expression from its first to its last character. */
  | { type: "regex"; regex: string }
  /** Text of a context-free grammar (Lark syntax). */
  | { type: "grammar"; grammar: string };

/** Anything that JSON can hold. */
export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue | undefined };

/** A JSON object. */
export type JsonObject = { readonly [key: string]: JsonValue | undefined };

/** How to sample, and when to stop. What is absent is the LLM's own default, never zero. */
export interface GenerationParameters {
  /** Another model of the same LLM, one that its configuration lists. */
  model?: string | undefined;
  /** From 0 to 2; 0 always takes the likeliest token. */
  temperature?: number | undefined;
  /** Above 0, up to 1. */
  topP?: number | undefined;
  /** 0 keeps every token. */
  topK?: number | undefined;
  /** From 0 to 1. */
  minP?: number | undefined;
  /** The most tokens to generate, reasoning included. */
  maxTokens?: number | undefined;
  /** A signed 64-bit number; a `bigint` where it is beyond 2^53. */
  seed?: number | bigint | undefined;
  /** From -2 to 2. */
  presencePenalty?: number | undefined;
  /** From -2 to 2. */
  frequencyPenalty?: number | undefined;
  /** Above 0 to 10. */
  repetitionPenalty?: number | undefined;
  /** Texts that end the answer and are not part of it; a single string counts as a list of one. */
  stop?: string | readonly string[] | undefined;
  /** Added to the logits of tokens, by token id. */
  logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number> | undefined;
  /** How many of the likeliest alternatives to list for each token; 0 lists the sampled token alone. */
  topLogprobs?: number | undefined;
  /** How much a reasoning model may think. */
  reasoningEffort?: ReasoningEffort | number | undefined;
}

/** What goes with a call as gRPC metadata: names in lower case, values of printable ASCII. */
export type CallMetadata = Readonly<Record<string, string>>;

/** What every call takes. */
export interface CallOptions {
  /** Ends the call, at the server too, with `GenerationCancelledError`. */
  signal?: AbortSignal | undefined;
  /** The most seconds that the call may take, waiting and retries included. */
  timeout?: number | undefined;
  /** Sent with the call, such as `traceparent` and `tracestate`. */
  metadata?: CallMetadata | undefined;
}

/** What a generation takes beside its prompt. */
export interface GenerateOptions extends GenerationParameters, CallOptions {
  /** Replaces the conversation's own system message. */
  systemPrompt?: string | undefined;
  /** The form that the answer must have. */
  responseFormat?: ResponseFormat | undefined;
  /** The functions that the model may ask to be called. */
  tools?: readonly Tool[] | undefined;
  /** Whether and which tool must be called. */
  toolChoice?: ToolChoice | undefined;
  /** Settings outside the contract, by the keys that the LLM's provider lists. */
  providerOptions?: JsonObject | undefined;
  /** The caller's own id for logs, traces and errors. It does not deduplicate. */
  requestId?: string | undefined;
  /** The caller's labels for logs and traces. */
  labels?: Readonly<Record<string, string>> | undefined;
  /** What happens to parameters that the LLM does not support. */
  parametersPolicy?: ParametersPolicy | number | undefined;
}
