import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import * as front from "@abstractllm/client";
import { AbstractLLMError, ErrorReason } from "@abstractllm/client";
import * as v1 from "@abstractllm/client/v1";
import { status } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo, RetryInfo } from "../dist/gen/google/rpc/error_details.js";
import { Status } from "../dist/gen/google/rpc/status.js";
import { connect, fail, failure } from "./server.js";

/** The contract's table: the class and the code of each reason; true where a retry helps. */
const TABLE: Record<ErrorReason, [string, status, boolean]> = {
  INVALID_REQUEST: ["InvalidRequestError", status.INVALID_ARGUMENT, false],
  UNSUPPORTED_PARAMETER: ["UnsupportedParameterError", status.INVALID_ARGUMENT, false],
  CONTEXT_LENGTH_EXCEEDED: ["ContextLengthExceededError", status.INVALID_ARGUMENT, false],
  MESSAGE_TOO_LARGE: ["InvalidRequestError", status.RESOURCE_EXHAUSTED, false],
  UNSUPPORTED_FEATURE: ["UnsupportedFeatureError", status.UNIMPLEMENTED, false],
  UNKNOWN_LLM: ["UnknownLLMError", status.NOT_FOUND, false],
  MODEL_NOT_FOUND: ["ModelNotFoundError", status.NOT_FOUND, false],
  UNAUTHENTICATED: ["AuthenticationError", status.UNAUTHENTICATED, false],
  NOT_ALLOWED: ["PermissionDeniedError", status.PERMISSION_DENIED, false],
  PROVIDER_CREDENTIALS: ["ProviderCredentialsError", status.FAILED_PRECONDITION, false],
  NOT_CONFIGURED: ["ConfigurationError", status.FAILED_PRECONDITION, false],
  MODEL_LOAD_FAILED: ["ModelLoadError", status.FAILED_PRECONDITION, false],
  MODEL_IN_USE: ["ModelInUseError", status.FAILED_PRECONDITION, false],
  CONTENT_BLOCKED: ["ContentBlockedError", status.FAILED_PRECONDITION, false],
  RATE_LIMITED: ["RateLimitedError", status.RESOURCE_EXHAUSTED, true],
  OVERLOADED: ["OverloadedError", status.RESOURCE_EXHAUSTED, true],
  QUOTA_EXCEEDED: ["QuotaExceededError", status.RESOURCE_EXHAUSTED, false],
  PROVIDER_UNAVAILABLE: ["ProviderUnavailableError", status.UNAVAILABLE, true],
  PROVIDER_PROTOCOL: ["ProviderProtocolError", status.UNAVAILABLE, true],
  INCOMPLETE_STREAM: ["IncompleteStreamError", status.UNAVAILABLE, false],
  ENGINE_CRASHED: ["EngineCrashedError", status.UNAVAILABLE, true],
  SHUTTING_DOWN: ["ServerShuttingDownError", status.UNAVAILABLE, true],
  TIMEOUT: ["GenerationTimeoutError", status.DEADLINE_EXCEEDED, false],
  CANCELLED: ["GenerationCancelledError", status.CANCELLED, false],
  STALE_CONFIG: ["StaleConfigError", status.ABORTED, false],
  INTERNAL: ["InternalError", status.INTERNAL, false],
  UPSTREAM_REJECTED: ["UpstreamRejectedError", status.FAILED_PRECONDITION, false],
};

type Detail = { typeUrl: string; value: Uint8Array };

function info(reason: string, metadata: Record<string, string> = {}, domain = "abstractllm"): Detail {
  const value = ErrorInfo.create({ reason, domain, metadata: new Map(Object.entries(metadata)) });
  return { typeUrl: "type.googleapis.com/google.rpc.ErrorInfo", value: ErrorInfo.encode(value).finish() };
}

function retryInfo(seconds: bigint, nanos: number): Detail {
  const value = RetryInfo.encode({ retryDelay: { seconds, nanos } }).finish();
  return { typeUrl: "type.googleapis.com/google.rpc.RetryInfo", value };
}

function badRequest(field: string): Detail {
  const value = BadRequest.encode(BadRequest.create({ fieldViolations: [{ field }] })).finish();
  return { typeUrl: "type.googleapis.com/google.rpc.BadRequest", value };
}

function trailers(...details: Detail[]): Record<string, string | Buffer> {
  const encoded = Buffer.from(Status.encode({ code: 0, message: "", details }).finish());
  return { "grpc-status-details-bin": encoded, "grpc-retry-pushback-ms": "-1" };
}

/** Makes a call that the server ends with a status, and returns its error. */
async function raised(t: TestContext, code: status, message: string, extra = {}): Promise<AbstractLLMError> {
  const { llm } = await connect(t, {
    generate: () => fail(code, message, { "grpc-retry-pushback-ms": "-1", ...extra }),
  });
  return failure(llm.generate("Hi"), AbstractLLMError);
}

for (const [reason, [name, code, retryable]] of Object.entries(TABLE)) {
  test(`${reason} is ${name}`, async (t) => {
    const error = await raised(t, code, "synthetic", trailers(info(reason)));
    assert.deepEqual([error.name, error.reason, error.retryable], [name, reason, retryable]);
    assert.equal(error.message, "synthetic");
    assert.ok(error instanceof AbstractLLMError && error.constructor.name === name);
  });
}

test("every reason of the contract has its class, and every class its reason", () => {
  const contract = Object.keys(v1.ErrorReason).filter((name) => Number.isNaN(Number(name)) && name !== "UNSPECIFIED");
  assert.deepEqual(Object.keys(ErrorReason).sort(), contract.sort());
  assert.deepEqual(Object.keys(TABLE).sort(), contract.sort());
  const classes = Object.values(front).filter(
    (value): value is typeof AbstractLLMError =>
      typeof value === "function" && value.prototype instanceof AbstractLLMError,
  );
  for (const kind of classes) {
    const error = new kind("x");
    const [name, , retryable] = TABLE[error.reason as ErrorReason];
    assert.deepEqual([kind.name, error.retryable, error.partialText], [name, retryable, ""]);
  }
  assert.equal(classes.length, new Set(Object.values(TABLE).map(([name]) => name)).size);
});

test("an error carries all facts of its details", async (t) => {
  const facts = {
    request_id: "r",
    llm: "l",
    provider: "p",
    model: "m",
    upstream_status: "429",
    field: "parameters.top_p",
    limit: "1",
    requested: "2.5",
    output_tokens: "12",
  };
  const details = [badRequest("other"), info("RATE_LIMITED", facts), retryInfo(1n, 500_000_000)];
  const {
    cause: _,
    stack: __,
    ...properties
  } = await raised(t, status.RESOURCE_EXHAUSTED, "slow down", trailers(...details));
  assert.deepEqual(properties, {
    name: "RateLimitedError",
    reason: "RATE_LIMITED",
    retryable: true,
    retryAfter: 1.5,
    requestId: "r",
    llm: "l",
    provider: "p",
    model: "m",
    upstreamStatus: 429,
    field: "parameters.top_p",
    limit: 1,
    requested: "2.5",
    outputTokens: 12,
    partialText: "",
  });
});

test("a field may come from BadRequest alone, and a huge number stays the text it is", async (t) => {
  const huge = "9007199254740993";
  const error = await raised(
    t,
    status.INVALID_ARGUMENT,
    "x",
    trailers(info("INVALID_REQUEST", { limit: huge }), badRequest("seed")),
  );
  assert.deepEqual([error.field, error.limit], ["seed", huge]);
});

for (const [code, name, retryable] of [
  [status.INVALID_ARGUMENT, "InvalidRequestError", false],
  [status.OUT_OF_RANGE, "InvalidRequestError", false],
  [status.NOT_FOUND, "UnknownLLMError", false],
  [status.UNIMPLEMENTED, "UnsupportedFeatureError", false],
  [status.UNAUTHENTICATED, "AuthenticationError", false],
  [status.PERMISSION_DENIED, "PermissionDeniedError", false],
  [status.FAILED_PRECONDITION, "ConfigurationError", false],
  [status.RESOURCE_EXHAUSTED, "OverloadedError", false],
  [status.UNAVAILABLE, "ProviderUnavailableError", true],
  [status.DEADLINE_EXCEEDED, "GenerationTimeoutError", false],
  [status.CANCELLED, "GenerationCancelledError", false],
  [status.ABORTED, "StaleConfigError", false],
  [status.INTERNAL, "InternalError", false],
  [status.DATA_LOSS, "InternalError", false],
  [status.UNKNOWN, "InternalError", false],
] as const) {
  test(`a bare ${status[code]} is ${name}`, async (t) => {
    const error = await raised(t, code, "");
    assert.deepEqual([error.name, error.retryable, error.message], [name, retryable, status[code]]);
  });
}

test("a reason of a newer contract stays as it is, with the class of its code", async (t) => {
  const error = await raised(t, status.NOT_FOUND, "x", trailers(info("BRAND_NEW", { llm: "l" })));
  assert.deepEqual(
    [error.name, error.reason, error.llm, error.retryable],
    ["UnknownLLMError", "BRAND_NEW", "l", false],
  );
  const later = await raised(t, status.ABORTED, "x", trailers(info("BRAND_NEW"), retryInfo(2n, 0)));
  assert.deepEqual([later.retryable, later.retryAfter], [true, 2]);
});

test("the details of another domain are not ours", async (t) => {
  const error = await raised(t, status.UNAVAILABLE, "x", trailers(info("RATE_LIMITED", {}, "example.com")));
  assert.deepEqual([error.name, error.reason], ["ProviderUnavailableError", "PROVIDER_UNAVAILABLE"]);
});

for (const [title, bytes] of [
  ["bytes that do not decode as a Status", Buffer.from([0x0a, 0xff, 0xff])],
  [
    "bytes that do not decode as an ErrorInfo",
    trailers({ typeUrl: "x/google.rpc.ErrorInfo", value: Uint8Array.of(0x0a, 0xff) })["grpc-status-details-bin"],
  ],
] as const) {
  test(`${title} leave the status as it is`, async (t) => {
    const error = await raised(t, status.INVALID_ARGUMENT, "broken", { "grpc-status-details-bin": bytes });
    assert.deepEqual([error.name, error.message], ["InvalidRequestError", "broken"]);
  });
}

test("gRPC's own words for a message beyond a limit are MESSAGE_TOO_LARGE", async (t) => {
  const error = await raised(t, status.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (5 vs. 4)");
  assert.deepEqual([error.name, error.reason, error.retryable], ["InvalidRequestError", "MESSAGE_TOO_LARGE", false]);
  assert.deepEqual([error.limit, error.requested], [4, 5]);
  const vague = await raised(t, status.RESOURCE_EXHAUSTED, "Attempted to send message with a size larger than 4");
  assert.deepEqual([vague.reason, vague.limit], ["MESSAGE_TOO_LARGE", undefined]);
});

test("an error tells the status that it came from as its cause", async (t) => {
  const { cause } = await raised(t, status.ABORTED, "x");
  assert.equal((cause as { code: number }).code, status.ABORTED);
});
