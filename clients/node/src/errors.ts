/** The classes of all failures, each with a `reason` that a program can branch on. */

import { ErrorReason } from "./enums.js";

/** The facts of a failure beside its message; absent where not known. */
export interface ErrorFacts {
  reason?: ErrorReason | (string & {}) | undefined;
  retryable?: boolean | undefined;
  retryAfter?: number | undefined;
  provider?: string | undefined;
  llm?: string | undefined;
  model?: string | undefined;
  upstreamStatus?: number | undefined;
  requestId?: string | undefined;
  field?: string | undefined;
  limit?: string | number | undefined;
  requested?: string | number | undefined;
  outputTokens?: number | undefined;
  partialText?: string | undefined;
  cause?: unknown;
}

/** The root of all errors of this package. */
export class AbstractLLMError extends Error {
  /** The reason of an error that is made without one. */
  static readonly defaultReason: ErrorReason = ErrorReason.INTERNAL;
  /** The `retryable` of an error that is made without one. */
  static readonly defaultRetryable: boolean = false;

  /** The reason, for a program to branch on; a newer server may send one that is not in `ErrorReason`. */
  readonly reason: ErrorReason | (string & {});
  /** True if the same request, unchanged, may succeed later. */
  readonly retryable: boolean;
  /** Seconds to wait before a retry, where known. */
  declare readonly retryAfter: number | undefined;
  /** The provider that failed. */
  declare readonly provider: string | undefined;
  /** The name of the LLM that failed. */
  declare readonly llm: string | undefined;
  /** The model that failed. */
  declare readonly model: string | undefined;
  /** The hosted provider's HTTP status. */
  declare readonly upstreamStatus: number | undefined;
  /** The request's id, to find it in the logs. */
  declare readonly requestId: string | undefined;
  /** The path of the field that is wrong, in the contract's names, such as `parameters.top_p`. */
  declare readonly field: string | undefined;
  /** The limit of the field's value. */
  declare readonly limit: string | number | undefined;
  /** The field's value. */
  declare readonly requested: string | number | undefined;
  /** Tokens that were generated before the failure. */
  declare readonly outputTokens: number | undefined;
  /** The text that came before the failure. */
  readonly partialText: string;

  constructor(message: string, facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    const { cause: _, reason, retryable, partialText, ...rest } = facts;
    this.name = new.target.name;
    this.reason = reason ?? new.target.defaultReason;
    this.retryable = retryable ?? new.target.defaultRetryable;
    this.partialText = partialText ?? "";
    // Facts that are not known are no properties, so that a printed error shows only those that are.
    Object.assign(this, Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined)));
  }
}

/** The request is malformed: the value `requested` of `field` is not within `limit`. */
export class InvalidRequestError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.INVALID_REQUEST;
}

/** The LLM does not take this parameter or provider option. */
export class UnsupportedParameterError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.UNSUPPORTED_PARAMETER;
}

/** Prompt and answer do not fit the model's context window: `requested` tokens against `limit`. */
export class ContextLengthExceededError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.CONTEXT_LENGTH_EXCEEDED;
}

/** The LLM, or the server, cannot do this kind of request. */
export class UnsupportedFeatureError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.UNSUPPORTED_FEATURE;
}

/** No LLM of this name is configured. */
export class UnknownLLMError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.UNKNOWN_LLM;
}

/** The provider, the hub or the cache has no such model. */
export class ModelNotFoundError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.MODEL_NOT_FOUND;
}

/** The caller is not authenticated: the token or certificate is missing or not known to the server. */
export class AuthenticationError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.UNAUTHENTICATED;
}

/** The caller's role does not allow this. */
export class PermissionDeniedError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.NOT_ALLOWED;
}

/** The provider's key is missing or refused. */
export class ProviderCredentialsError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.PROVIDER_CREDENTIALS;
}

/** The configuration of the server, or of this client, is wrong or incomplete. */
export class ConfigurationError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.NOT_CONFIGURED;
}

/** A local model cannot be loaded. */
export class ModelLoadError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.MODEL_LOAD_FAILED;
}

/** A model cannot be removed or unloaded while it is used. */
export class ModelInUseError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.MODEL_IN_USE;
}

/** The provider refuses the request's content. */
export class ContentBlockedError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.CONTENT_BLOCKED;
}

/** The provider asks to slow down. */
export class RateLimitedError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.RATE_LIMITED;
  static override readonly defaultRetryable = true;
}

/** Too many requests wait already. */
export class OverloadedError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.OVERLOADED;
  static override readonly defaultRetryable = true;
}

/** The account's quota at the provider is used up. */
export class QuotaExceededError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.QUOTA_EXCEEDED;
}

/** The provider, or the server, cannot be reached, or failed by itself. */
export class ProviderUnavailableError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.PROVIDER_UNAVAILABLE;
  static override readonly defaultRetryable = true;
}

/** The provider's answer cannot be understood. */
export class ProviderProtocolError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.PROVIDER_PROTOCOL;
  static override readonly defaultRetryable = true;
}

/** The answer broke off; `partialText` holds the text that came. The client does not ask again by itself. */
export class IncompleteStreamError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.INCOMPLETE_STREAM;
}

/** The local engine's process ended; it is started again by itself. */
export class EngineCrashedError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.ENGINE_CRASHED;
  static override readonly defaultRetryable = true;
}

/** The server, or the LLM, is closing; another server can answer. */
export class ServerShuttingDownError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.SHUTTING_DOWN;
  static override readonly defaultRetryable = true;
}

/** The deadline passed. */
export class GenerationTimeoutError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.TIMEOUT;
}

/** The caller, or an operator, cancelled the request; `cause` is the AbortSignal's reason where there is one. */
export class GenerationCancelledError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.CANCELLED;
}

/** The configuration changed since it was read; read it again. */
export class StaleConfigError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.STALE_CONFIG;
}

/** A fault of this software; the full text is in the server's log, under the request's id. */
export class InternalError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.INTERNAL;
}

/** The provider refused, for reasons of its own, what the server's checks accepted; another provider may answer. */
export class UpstreamRejectedError extends AbstractLLMError {
  static override readonly defaultReason = ErrorReason.UPSTREAM_REJECTED;
}
