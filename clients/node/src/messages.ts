/** The content of requests: messages and their parts, tools, answer formats, options. All of it is plain data. */

import type { ParametersPolicy, Role, ToolChoiceMode } from "./enums.js";
import type { GenerationParameters } from "./generation-parameters.js";
import type { JsonObject } from "./json.js";

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

/** The result of a tool call, sent back to the model. */
export interface ToolResultPart {
  type: "tool_result";
  toolCallId: string;
  content: string;
  isError?: boolean | undefined;
  providerState?: Uint8Array | undefined;
}

/** The thinking of a reasoning model before its answer. */
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

/** A message of text alone: a short form of a `ChatMessage` with one `TextPart`. */
export interface TextMessage {
  role: Role | number;
  content: string;
}

/** The input of a generation: text, or a conversation. */
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

/** The gRPC metadata of a call: names in lower case, values of printable ASCII. */
export type CallMetadata = Readonly<Record<string, string>>;

/** The options of every call. */
export interface CallOptions {
  /** Ends the call here and at the server, with `GenerationCancelledError`. */
  signal?: AbortSignal | undefined;
  /** The most seconds that the call may take, waiting and retries included. */
  timeout?: number | undefined;
  /** Metadata of the call, such as `traceparent` and `tracestate`. */
  metadata?: CallMetadata | undefined;
}

/** The options of a generation. */
export interface GenerateOptions extends GenerationParameters, CallOptions {
  /** Replaces the conversation's own system message. */
  systemPrompt?: string | undefined;
  /** The form that the answer must have. */
  responseFormat?: ResponseFormat | undefined;
  /** The functions that the model may ask to be called. */
  tools?: readonly Tool[] | undefined;
  /** A rule for tool calls, or the tool that must be called. */
  toolChoice?: ToolChoice | undefined;
  /** Settings outside the contract, by the keys that the LLM's provider lists. */
  providerOptions?: JsonObject | undefined;
  /** The caller's own id for logs, traces and errors. It does not deduplicate. */
  requestId?: string | undefined;
  /** The caller's labels for logs and traces. */
  labels?: Readonly<Record<string, string>> | undefined;
  /** The treatment of parameters that the LLM does not support; `reject` if absent. */
  parametersPolicy?: ParametersPolicy | number | undefined;
}
