/** A call's gRPC status -> one of the client's errors. */

import { type ServiceError, status } from "@grpc/grpc-js";
import * as errors from "./errors.js";
import { AbstractLLMError, type ErrorFacts, InternalError, InvalidRequestError } from "./errors.js";
import { BadRequest, ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import { seconds } from "./wire.js";

const DOMAIN = "abstractllm";
const DETAILS = "grpc-status-details-bin";
/** The text of gRPC's error for a message beyond a limit, on either side; mostly it names the size and the limit. */
const TOO_LARGE = /larger than(?: max \((\d+) vs\.? (\d+)\))?/;

type ErrorClass = typeof AbstractLLMError;

const BY_REASON: ReadonlyMap<string, ErrorClass> = new Map<string, ErrorClass>([
  ...Object.values(errors)
    .filter((kind) => kind !== AbstractLLMError)
    .map((kind): [string, ErrorClass] => [kind.defaultReason, kind]),
  ["MESSAGE_TOO_LARGE", InvalidRequestError],
]);

// For a status without an ErrorInfo (from gRPC itself, or a proxy), or with a reason that this client does not know.
const BY_CODE: ReadonlyMap<status, ErrorClass> = new Map<status, ErrorClass>([
  [status.INVALID_ARGUMENT, InvalidRequestError],
  [status.OUT_OF_RANGE, InvalidRequestError],
  [status.NOT_FOUND, errors.UnknownLLMError],
  [status.UNIMPLEMENTED, errors.UnsupportedFeatureError],
  [status.UNAUTHENTICATED, errors.AuthenticationError],
  [status.PERMISSION_DENIED, errors.PermissionDeniedError],
  [status.FAILED_PRECONDITION, errors.ConfigurationError],
  [status.RESOURCE_EXHAUSTED, errors.OverloadedError],
  [status.UNAVAILABLE, errors.ProviderUnavailableError],
  [status.DEADLINE_EXCEEDED, errors.GenerationTimeoutError],
  [status.CANCELLED, errors.GenerationCancelledError],
  [status.ABORTED, errors.StaleConfigError],
]);

/**
 * Rebuilds the error that the server raised. Calls of the generated stubs fail with gRPC's own errors, which it takes.
 *
 * @param failure The error that gRPC raised.
 * @param partialText The answer's text that came before the failure.
 * @returns The error of the ErrorInfo's reason; without an ErrorInfo, the error of the code, retryable only if it is
 *   UNAVAILABLE.
 */
export function errorFrom(failure: ServiceError, partialText = ""): AbstractLLMError {
  const message = failure.details || (status[failure.code] ?? "UNKNOWN");
  const { info, facts: details } = decodeDetails(failure);
  const facts: ErrorFacts = { ...details, partialText, cause: failure };
  const unavailable = failure.code === status.UNAVAILABLE;
  if (info === undefined) return errorWithoutInfo(failure.code, message, { ...facts, retryable: unavailable });
  const kind = BY_REASON.get(info.reason);
  if (kind !== undefined) return new kind(message, { ...facts, reason: info.reason });
  const fallback = BY_CODE.get(failure.code) ?? InternalError;
  const retryable = facts.retryAfter !== undefined || unavailable;
  return new fallback(message, { ...facts, reason: info.reason || undefined, retryable });
}

function errorWithoutInfo(code: status, message: string, facts: ErrorFacts): AbstractLLMError {
  const sizes = code === status.RESOURCE_EXHAUSTED ? TOO_LARGE.exec(message) : null;
  if (sizes !== null) {
    const [, requested, limit] = sizes;
    return new InvalidRequestError(message, {
      ...facts,
      reason: "MESSAGE_TOO_LARGE",
      limit: safeInteger(limit),
      requested: safeInteger(requested),
    });
  }
  const kind = BY_CODE.get(code) ?? InternalError;
  return new kind(message, facts);
}

/** Decodes the google.rpc details: the ErrorInfo of our domain, and the facts for an error's attributes. */
function decodeDetails(failure: ServiceError): { info: ErrorInfo | undefined; facts: ErrorFacts } {
  let info: ErrorInfo | undefined;
  let facts: ErrorFacts = {};
  try {
    for (const { typeUrl, value } of Status.decode(encodedStatus(failure)).details) {
      const type = typeUrl.slice(typeUrl.lastIndexOf("/") + 1);
      if (type === "google.rpc.ErrorInfo") {
        const decoded = ErrorInfo.decode(value);
        if (decoded.domain === DOMAIN) info = decoded;
      } else if (type === "google.rpc.RetryInfo") {
        const { retryDelay } = RetryInfo.decode(value);
        facts.retryAfter = retryDelay === undefined ? 0 : seconds(retryDelay);
      } else if (type === "google.rpc.BadRequest") {
        facts.field = BadRequest.decode(value).fieldViolations[0]?.field ?? facts.field;
      }
    }
  } catch {
    // A broken detail says nothing; the status code still does.
  }
  if (info !== undefined) facts = { ...facts, ...factsOf(info.metadata) };
  return { info, facts };
}

function encodedStatus(failure: ServiceError): Uint8Array {
  const value = failure.metadata.get(DETAILS)[0];
  return value instanceof Uint8Array ? value : new Uint8Array();
}

function factsOf(metadata: ReadonlyMap<string, string>): ErrorFacts {
  const facts: ErrorFacts = {
    requestId: metadata.get("request_id") || undefined,
    llm: metadata.get("llm") || undefined,
    provider: metadata.get("provider") || undefined,
    model: metadata.get("model") || undefined,
    field: metadata.get("field") || undefined,
    upstreamStatus: safeInteger(metadata.get("upstream_status")),
    outputTokens: safeInteger(metadata.get("output_tokens")),
    limit: safeInteger(metadata.get("limit")) ?? (metadata.get("limit") || undefined),
    requested: safeInteger(metadata.get("requested")) ?? (metadata.get("requested") || undefined),
  };
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined));
}

/** Reads digits as a number; `undefined` for other texts, and for numbers beyond 2^53. */
function safeInteger(digits: string | undefined): number | undefined {
  if (digits === undefined || !/^\d+$/.test(digits)) return undefined;
  return Number.isSafeInteger(Number(digits)) ? Number(digits) : undefined;
}
