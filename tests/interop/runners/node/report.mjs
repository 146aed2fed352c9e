/** The form of what runners report: the same in every language. */

import { createHash } from "node:crypto";

/** Reports an error: its class, its reason, and its facts. */
export function error(failure) {
  return {
    class: failure.name,
    reason: failure.reason,
    message: failure.message,
    retryable: failure.retryable,
    retry_after: failure.retryAfter ?? null,
    llm: failure.llm ?? null,
    provider: failure.provider ?? null,
    upstream_status: failure.upstreamStatus ?? null,
    has_request_id: Boolean(failure.requestId),
    field: failure.field ?? null,
    limit: failure.limit === undefined ? null : String(failure.limit),
    requested: failure.requested === undefined ? null : String(failure.requested),
    output_tokens: failure.outputTokens ?? null,
    partial_text: failure.partialText,
  };
}

/** Reports token counts; absent ones are null. */
export function usage(counts) {
  return {
    input_tokens: counts.inputTokens ?? null,
    output_tokens: counts.outputTokens ?? null,
    cached_input_tokens: counts.cachedInputTokens ?? null,
    reasoning_tokens: counts.reasoningTokens ?? null,
  };
}

/** Reports an event by its type; fields that may be empty are left out where they are. */
export function event(received) {
  switch (received.type) {
    case "started":
      return { type: "started", llm: received.llm, provider: received.provider, model: received.model };
    case "text_delta":
      return { type: "text", text: received.text };
    case "reasoning_delta":
      return { type: "reasoning", text: received.text };
    case "tool_call_delta": {
      const { index, id, name, argumentsFragment } = received;
      return { type: "tool_call", index, id, name, arguments_fragment: argumentsFragment };
    }
    case "finished": {
      const { finishReason, stopSequence } = received;
      return {
        type: "finished",
        finish_reason: finishReason,
        stop_sequence: stopSequence,
        usage: usage(received.usage),
      };
    }
  }
  throw new TypeError(received.type);
}

/** Reports a whole answer. */
export function completion(answer) {
  return {
    text: answer.text,
    message: message(answer.message),
    finish_reason: answer.finishReason,
    stop_sequence: answer.stopSequence,
    usage: usage(answer.usage),
    llm: answer.llm,
    provider: answer.provider,
    model: answer.model,
    has_id: Boolean(answer.id),
    dropped_parameters: answer.droppedParameters,
  };
}

/** Reports a chat message; bytes by their size and SHA-256. */
export function message(received) {
  return { role: received.role, parts: received.parts.map(part) };
}

/** Reports one part of a message. */
export function part(received) {
  const state = received.providerState ? { provider_state: Buffer.from(received.providerState).toString("hex") } : {};
  switch (received.type) {
    case "text":
      return { text: received.text, ...state };
    case "image": {
      const sha256 = digest(received.data);
      return { image: { mime_type: received.mimeType, size: received.data.length, sha256 }, ...state };
    }
    case "tool_call":
      return { tool_call: { id: received.id, name: received.name, arguments_json: received.argumentsJson }, ...state };
    case "tool_result": {
      const { toolCallId, content, isError } = received;
      return { tool_result: { tool_call_id: toolCallId, content, is_error: isError }, ...state };
    }
    case "reasoning":
      return { reasoning: received.text, ...state };
  }
  throw new TypeError(received.type);
}

/** Returns the SHA-256 of bytes, or of a text in UTF-8. */
export function digest(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Returns the value of a promise; where it fails, the class, the reason and the named facts of its error. */
export async function outcome(promise, ...facts) {
  try {
    return await promise;
  } catch (failure) {
    return Object.fromEntries([
      ["class", failure.name],
      ["reason", failure.reason],
      ...facts.map((key) => [key, failure[key]]),
    ]);
  }
}

/** Returns all values of an iterator. */
export async function all(iterator) {
  const values = [];
  for await (const value of iterator) values.push(value);
  return values;
}
