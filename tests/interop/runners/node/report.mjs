/** The form in which runners report: the same in every language. */

import { createHash } from "node:crypto";

/** An error: its class, its reason, and its facts. */
export function error(found) {
  return {
    class: found.name,
    reason: found.reason,
    message: found.message,
    retryable: found.retryable,
    retry_after: found.retryAfter ?? null,
    llm: found.llm ?? null,
    provider: found.provider ?? null,
    upstream_status: found.upstreamStatus ?? null,
    has_request_id: Boolean(found.requestId),
    field: found.field ?? null,
    limit: found.limit === undefined ? null : String(found.limit),
    requested: found.requested === undefined ? null : String(found.requested),
    output_tokens: found.outputTokens ?? null,
    partial_text: found.partialText,
  };
}

/** Token counts; absent ones are null. */
export function usage(found) {
  return {
    input_tokens: found.inputTokens ?? null,
    output_tokens: found.outputTokens ?? null,
    cached_input_tokens: found.cachedInputTokens ?? null,
    reasoning_tokens: found.reasoningTokens ?? null,
  };
}

/** An event by its type; empty fields are left out where they may be empty. */
export function event(found) {
  switch (found.type) {
    case "started":
      return { type: "started", llm: found.llm, provider: found.provider, model: found.model };
    case "text_delta":
      return { type: "text", text: found.text };
    case "reasoning_delta":
      return { type: "reasoning", text: found.text };
    case "tool_call_delta": {
      const { index, id, name, argumentsFragment } = found;
      return { type: "tool_call", index, id, name, arguments_fragment: argumentsFragment };
    }
    case "finished": {
      const { finishReason, stopSequence } = found;
      return {
        type: "finished",
        finish_reason: finishReason,
        stop_sequence: stopSequence,
        usage: usage(found.usage),
      };
    }
  }
  throw new TypeError(found.type);
}

/** A whole answer. */
export function completion(found) {
  return {
    text: found.text,
    message: message(found.message),
    finish_reason: found.finishReason,
    stop_sequence: found.stopSequence,
    usage: usage(found.usage),
    llm: found.llm,
    provider: found.provider,
    model: found.model,
    has_id: Boolean(found.id),
    dropped_parameters: found.droppedParameters,
  };
}

/** A chat message; bytes by their size and SHA-256. */
export function message(found) {
  return { role: found.role, parts: found.parts.map(part) };
}

/** One part of a message. */
export function part(found) {
  const state = found.providerState ? { provider_state: Buffer.from(found.providerState).toString("hex") } : {};
  switch (found.type) {
    case "text":
      return { text: found.text, ...state };
    case "image": {
      const sha256 = digest(found.data);
      return { image: { mime_type: found.mimeType, size: found.data.length, sha256 }, ...state };
    }
    case "tool_call":
      return { tool_call: { id: found.id, name: found.name, arguments_json: found.argumentsJson }, ...state };
    case "tool_result": {
      const { toolCallId, content, isError } = found;
      return { tool_result: { tool_call_id: toolCallId, content, is_error: isError }, ...state };
    }
    case "reasoning":
      return { reasoning: found.text, ...state };
  }
  throw new TypeError(found.type);
}

/** The SHA-256 of bytes or of a text's UTF-8. */
export function digest(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

/** What a promise gives; of its failure, the class and the reason. */
export async function outcome(promise, ...more) {
  try {
    return await promise;
  } catch (found) {
    return Object.fromEntries([
      ["class", found.name],
      ["reason", found.reason],
      ...more.map((key) => [key, found[key]]),
    ]);
  }
}

/** All values of an iterator. */
export async function all(iterator) {
  const values = [];
  for await (const value of iterator) values.push(value);
  return values;
}
