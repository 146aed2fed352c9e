import assert from "node:assert/strict";
import { test } from "node:test";
import {
  ConfigurationError,
  type GenerateOptions,
  InvalidRequestError,
  type Prompt,
  RemoteLLM,
  type RemoteLLMOptions,
  UnsupportedParameterError,
} from "@abstractllm/client";
import { client, failure, serve } from "./server.js";

const lone = "whole \ud800 not";
const cycle: Record<string, unknown> = {};
cycle.self = cycle;

/** Requests that never leave, and the field that their error names. */
const REFUSED: [string, unknown, Record<string, unknown>, string][] = [
  ["a lone surrogate in the prompt", lone, {}, "prompt"],
  ["a lone surrogate in the system prompt", "Hi", { systemPrompt: lone }, "system_prompt"],
  ["a lone surrogate in a message", [{ role: "user", content: lone }], {}, "chat.messages[0].content"],
  ["a lone surrogate in a stop text", "Hi", { stop: ["x", lone] }, "parameters.stop[1]"],
  ["a lone surrogate in an option's key", "Hi", { providerOptions: { [lone]: 1 } }, "provider_options"],
  ["a lone surrogate in a label", "Hi", { labels: { a: lone } }, "labels.a"],
  ["a prompt of another type", 5, {}, "prompt"],
  ["a message without parts", [{ role: "user" }], {}, "chat.messages[0]"],
  ["a message with both content and parts", [{ role: "user", content: "a", parts: [] }], {}, "chat.messages[0]"],
  ["an unknown role", [{ role: "robot", content: "a" }], {}, "chat.messages[0].role"],
  ["an unknown part", [{ role: "user", parts: [{ type: "video" }] }], {}, "chat.messages[0].parts[0]"],
  [
    "a text for bytes",
    [{ role: "user", parts: [{ type: "image", data: "x" }] }],
    {},
    "chat.messages[0].parts[0].image.data",
  ],
  ["a text as a number", "Hi", { temperature: "1" }, "parameters.temperature"],
  ["NaN", "Hi", { temperature: Number.NaN }, "parameters.temperature"],
  ["null for a number", "Hi", { topP: null }, "parameters.top_p"],
  ["a fraction for a count", "Hi", { maxTokens: 1.5 }, "parameters.max_tokens"],
  ["a count of 33 bits", "Hi", { topK: 2 ** 31 }, "parameters.top_k"],
  ["a seed beyond 2^53 that is no bigint", "Hi", { seed: 2 ** 53 }, "parameters.seed"],
  ["a seed of 65 bits", "Hi", { seed: 2n ** 63n }, "parameters.seed"],
  ["a key that is no token id", "Hi", { logitBias: { x1: 1 } }, "parameters.logit_bias"],
  ["an unknown effort", "Hi", { reasoningEffort: "most" }, "parameters.reasoning_effort"],
  ["an unknown format", "Hi", { responseFormat: { type: "xml" } }, "response_format"],
  ["a format without its text", "Hi", { responseFormat: { type: "regex" } }, "response_format.regex"],
  ["an object for a list of tools", "Hi", { tools: { name: "f" } }, "tools"],
  ["a tool without a name", "Hi", { tools: [{}] }, "tools[0].name"],
  ["an unknown rule for tools", "Hi", { toolChoice: "maybe" }, "tool_choice.mode"],
  ["an array for an object of options", "Hi", { providerOptions: [1] }, "provider_options"],
  ["an option that JSON cannot hold", "Hi", { providerOptions: { a: [new Date()] } }, "provider_options.a[0]"],
  ["an option that is not finite", "Hi", { providerOptions: { a: 1 / 0 } }, "provider_options.a"],
  ["an option that contains itself", "Hi", { providerOptions: cycle }, `provider_options${".self".repeat(34)}`],
  ["a timeout of 0", "Hi", { timeout: 0 }, "timeout"],
  ["a timeout that gRPC cannot send", "Hi", { timeout: 1e12 }, "timeout"],
  ["an object for a signal", "Hi", { signal: {} }, "signal"],
  ["null for options", "Hi", null as never, "options"],
  ["an unknown key of a message", [{ role: "user", content: "a", name: "b" }], {}, "chat.messages[0]"],
  [
    "an unknown key of a part",
    [{ role: "tool", parts: [{ type: "text", text: "a", is_error: true }] }],
    {},
    "chat.messages[0].parts[0]",
  ],
  ["an unknown key of a tool", "Hi", { tools: [{ name: "f", parameters: {} }] }, "tools[0]"],
  [
    "an unknown key of a format",
    "Hi",
    { responseFormat: { type: "regex", regex: "a", schema: {} } },
    "response_format",
  ],
  ["an unknown key of a choice", "Hi", { toolChoice: { name: "f", type: "function" } }, "tool_choice"],
];

for (const [title, prompt, options, field] of REFUSED) {
  test(`${title} is refused before anything is sent`, async (t) => {
    const server = await serve(t, {});
    const llm = client(t, server.address);
    const error = await failure(llm.generate(prompt as Prompt, options as GenerateOptions), InvalidRequestError);
    assert.equal(error.field, field);
    assert.equal(error.reason, "INVALID_REQUEST");
    assert.ok(error.message.startsWith(field), error.message);
    assert.throws(() => llm.stream(prompt as Prompt, options as GenerateOptions), {
      name: "InvalidRequestError",
      field,
    });
    assert.equal(server.calls.length, 0);
  });
}

test("an error shows 80 characters of a long value at most", async (t) => {
  const llm = client(t, "127.0.0.1:1");
  const error = await failure(llm.generate("Hi", { temperature: "x".repeat(10_000) as never }), InvalidRequestError);
  assert.equal(String(error.requested).length, 80);
});

test("an unknown option is refused by its name", async (t) => {
  const llm = client(t, "127.0.0.1:1");
  const error = await failure(llm.generate("Hi", { top_p: 1 } as GenerateOptions), UnsupportedParameterError);
  assert.equal(error.field, "parameters.top_p");
  await failure(llm.countTokens("Hi", { temperature: 0 } as never), UnsupportedParameterError);
  await failure(llm.listLlms({ timeuot: 5 } as never), UnsupportedParameterError);
  await failure(llm.clearModelCache({ models: "x" } as never), InvalidRequestError);
  await failure(llm.listLlms(null as never), InvalidRequestError);
  assert.throws(() => new RemoteLLM("127.0.0.1:1", { temperature: 0 } as RemoteLLMOptions), UnsupportedParameterError);
  assert.throws(() => new RemoteLLM("127.0.0.1:1", { defaults: { top_p: 1 } as object }), UnsupportedParameterError);
});

for (const [title, address, options] of [
  ["an empty address", "", {}],
  ["a web address", "http://127.0.0.1:50051", {}],
  ["an empty token", "127.0.0.1:1", { token: "" }],
  ["a token with a line break", "127.0.0.1:1", { token: "a\nb" }],
  ["a key without its certificate", "127.0.0.1:1", { tls: { privateKey: "x" } }],
  [
    "text that is no certificate",
    "127.0.0.1:1",
    { tls: { rootCertificates: "x", privateKey: "y", certificateChain: "z" } },
  ],
  ["metadata that cannot be sent", "127.0.0.1:1", { metadata: { "x y": "z" } }],
] as const) {
  test(`${title} is refused when the client is made`, () => {
    assert.throws(() => new RemoteLLM(address, options), ConfigurationError);
  });
}

test("defaults are checked when the client is made", () => {
  const make = (defaults: object) => () => new RemoteLLM("127.0.0.1:1", { defaults });
  assert.throws(make({ temperature: "1" }), { name: "InvalidRequestError", field: "parameters.temperature" });
  assert.throws(make({ signal: AbortSignal.timeout(1) }), UnsupportedParameterError);
  assert.throws(make({ timeout: -1 }), { name: "InvalidRequestError", field: "timeout" });
});

test("metadata of a call that cannot be sent are refused", async (t) => {
  const llm = client(t, "127.0.0.1:1");
  await failure(llm.generate("Hi", { metadata: { traceparent: "ü" } }), ConfigurationError);
});
