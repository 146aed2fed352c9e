/**
 * Enumerations: roles, finish reasons, states, reasons of errors.
 *
 * Each is an object of its members and the type of their values, so that `FinishReason.STOP` and `"stop"` are the
 * same. A value that a newer server sends and this client does not know comes through as its number.
 */

type Values<T> = T[keyof T];

/** The speaker of a chat message. */
export const Role = { SYSTEM: "system", USER: "user", ASSISTANT: "assistant", TOOL: "tool" } as const;
export type Role = Values<typeof Role>;

/** The reason why an answer ended. */
export const FinishReason = {
  /** The model ended its answer by itself. */
  STOP: "stop",
  /** `maxTokens`, or the end of the context window, was reached. */
  MAX_TOKENS: "max_tokens",
  /** One of the `stop` texts came up; the answer ends before it. */
  STOP_SEQUENCE: "stop_sequence",
  /** The model asks for tools to be called. */
  TOOL_CALLS: "tool_calls",
  /** The provider's filter cut the answer. */
  CONTENT_FILTER: "content_filter",
  /** The model declined to answer. */
  REFUSAL: "refusal",
} as const;
export type FinishReason = Values<typeof FinishReason>;

/** The amount of reasoning before an answer. */
export const ReasoningEffort = {
  NONE: "none",
  MINIMAL: "minimal",
  LOW: "low",
  MEDIUM: "medium",
  HIGH: "high",
  XHIGH: "xhigh",
} as const;
export type ReasoningEffort = Values<typeof ReasoningEffort>;

/** A rule for tool calls: the model may call a tool, must not, or must. */
export const ToolChoiceMode = { AUTO: "auto", NONE: "none", REQUIRED: "required" } as const;
export type ToolChoiceMode = Values<typeof ToolChoiceMode>;

/** The treatment of parameters that the LLM does not support. */
export const ParametersPolicy = {
  /** The request is refused and the parameter is named (the default). */
  REJECT: "reject",
  /** The parameter is left out and listed in `droppedParameters`. */
  DROP_UNSUPPORTED: "drop_unsupported",
} as const;
export type ParametersPolicy = Values<typeof ParametersPolicy>;

/** The state of an LLM. */
export const LlmState = { UNLOADED: "unloaded", LOADING: "loading", READY: "ready", FAILED: "failed" } as const;
export type LlmState = Values<typeof LlmState>;

/** The precision a local model's weights are loaded in. */
export const Quantization = { NONE: "none", INT8: "int8", INT4: "int4" } as const;
export type Quantization = Values<typeof Quantization>;

/** The reason of a failure; the values are the names of the contract's `ErrorReason` without their prefix. */
export const ErrorReason = {
  INVALID_REQUEST: "INVALID_REQUEST",
  UNSUPPORTED_PARAMETER: "UNSUPPORTED_PARAMETER",
  CONTEXT_LENGTH_EXCEEDED: "CONTEXT_LENGTH_EXCEEDED",
  MESSAGE_TOO_LARGE: "MESSAGE_TOO_LARGE",
  UNSUPPORTED_FEATURE: "UNSUPPORTED_FEATURE",
  UNKNOWN_LLM: "UNKNOWN_LLM",
  MODEL_NOT_FOUND: "MODEL_NOT_FOUND",
  UNAUTHENTICATED: "UNAUTHENTICATED",
  NOT_ALLOWED: "NOT_ALLOWED",
  PROVIDER_CREDENTIALS: "PROVIDER_CREDENTIALS",
  NOT_CONFIGURED: "NOT_CONFIGURED",
  MODEL_LOAD_FAILED: "MODEL_LOAD_FAILED",
  MODEL_IN_USE: "MODEL_IN_USE",
  CONTENT_BLOCKED: "CONTENT_BLOCKED",
  RATE_LIMITED: "RATE_LIMITED",
  OVERLOADED: "OVERLOADED",
  QUOTA_EXCEEDED: "QUOTA_EXCEEDED",
  PROVIDER_UNAVAILABLE: "PROVIDER_UNAVAILABLE",
  PROVIDER_PROTOCOL: "PROVIDER_PROTOCOL",
  INCOMPLETE_STREAM: "INCOMPLETE_STREAM",
  ENGINE_CRASHED: "ENGINE_CRASHED",
  SHUTTING_DOWN: "SHUTTING_DOWN",
  TIMEOUT: "TIMEOUT",
  CANCELLED: "CANCELLED",
  STALE_CONFIG: "STALE_CONFIG",
  INTERNAL: "INTERNAL",
  UPSTREAM_REJECTED: "UPSTREAM_REJECTED",
} as const;
export type ErrorReason = Values<typeof ErrorReason>;
