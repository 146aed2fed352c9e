/** A call's gRPC status -> one of the client's errors. */

import { type ServiceError, status } from "@grpc/grpc-js";
import * as errors from "./errors.js";
import { AbstractLLMError, type ErrorFacts, InternalError, InvalidRequestError } from "./errors.js";
import { BadRequest, ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import { seconds } from "./wire.js";

const DOMAIN = "abstractllm";
const DETAILS = "grpc-status-details-bin";
/** In gRPC's own words for a message beyond a limit, on either side, mostly with its size and the limit. */
const TOO_LARGE = /larger than(?: max \((\d+) vs\.? (\d+)\))?/;

type ErrorClass = typeof AbstractLLMError;

const BY_REASON: ReadonlyMap<string, ErrorClass> = new Map<string, ErrorClass>([
  ...Object.values(errors)
    .filter((found) => found !== AbstractLLMError)
    .map((found): [string, ErrorClass] => [found.defaultReason, found]),
  ["MESSAGE_TOO_LARGE", InvalidRequestError],
]);

// For a status without an ErrorInfo (from gRPC itself, or a proxy), or with a reason that is not known here.
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
 * Rebuilds the error that the server raised; for calls of the generated stubs, which fail with gRPC's own.
 *
 * @param failure What gRPC raised.
 * @param partialText The answer's text that came before.
 * @returns The error of the ErrorInfo's reason; without one, an error of the code, retryable only if UNAVAILABLE.
 */
export function errorFrom(failure: ServiceError, partialText = ""): AbstractLLMError {
  const message = failure.details || (status[failure.code] ?? "UNKNOWN");
  const { info, facts } = details(failure);
  const known: ErrorFacts = { ...facts, partialText, cause: failure };
  const unavailable = failure.code === status.UNAVAILABLE;
  if (info === undefined) return bare(failure.code, message, { ...known, retryable: unavailable });
  const kind = BY_REASON.get(info.reason);
  if (kind !== undefined) return new kind(message, { ...known, reason: info.reason });
  const fallback = BY_CODE.get(failure.code) ?? InternalError;
  const retryable = known.retryAfter !== undefined || unavailable;
  return new fallback(message, { ...known, reason: info.reason || undefined, retryable });
}

function bare(code: status, message: string, facts: ErrorFacts): AbstractLLMError {
  const sizes = code === status.RESOURCE_EXHAUSTED ? TOO_LARGE.exec(message) : null;
  if (sizes !== null) {
    const [, requested, limit] = sizes;
    return new InvalidRequestError(message, {
      ...facts,
      reason: "MESSAGE_TOO_LARGE",
      limit: whole(limit),
      requested: whole(requested),
    });
  }
  const kind = BY_CODE.get(code) ?? InternalError;
  return new kind(message, facts);
}

/** Reads the google.rpc details: the ErrorInfo of our domain, and the facts for an error's attributes. */
function details(failure: ServiceError): { info: ErrorInfo | undefined; facts: ErrorFacts } {
  let info: ErrorInfo | undefined;
  let facts: ErrorFacts = {};
  try {
    for (const { typeUrl, value } of Status.decode(encodedStatus(failure)).details) {
      const type = typeUrl.slice(typeUrl.lastIndexOf("/") + 1);
      if (type === "google.rpc.ErrorInfo") {
        const found = ErrorInfo.decode(value);
        if (found.domain === DOMAIN) info = found;
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
    upstreamStatus: whole(metadata.get("upstream_status")),
    outputTokens: whole(metadata.get("output_tokens")),
    limit: whole(metadata.get("limit")) ?? (metadata.get("limit") || undefined),
    requested: whole(metadata.get("requested")) ?? (metadata.get("requested") || undefined),
  };
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined));
}

/** The number that digits say, where a number holds it exactly. */
function whole(digits: string | undefined): number | undefined {
  if (digits === undefined || !/^\d+$/.test(digits)) return undefined;
  return Number.isSafeInteger(Number(digits)) ? Number(digits) : undefined;
}
