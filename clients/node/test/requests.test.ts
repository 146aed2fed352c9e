import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { GenerateOptions, Prompt, RemoteLLMOptions } from "@abstractllm/client";
import * as v1 from "@abstractllm/client/v1";
import { connect } from "./server.js";

/** Generates, and returns the request that arrives at the server. */
async function arrived(t: TestContext, prompt: Prompt, options?: GenerateOptions, clientOptions?: RemoteLLMOptions) {
  const { llm, server } = await connect(t, { generate: () => v1.GenerateResponse.create() }, clientOptions);
  await llm.generate(prompt, options);
  return server.calls[0]?.request as v1.GenerateRequest;
}

test("a prompt alone sends nothing else", async (t) => {
  const expected = v1.GenerateRequest.create({ input: { $case: "prompt", value: "Hi" } });
  assert.deepEqual(await arrived(t, "Hi"), expected);
});

test("an undefined option is an absent one", async (t) => {
  const request = await arrived(t, "Hi", { temperature: undefined, systemPrompt: undefined, tools: undefined });
  assert.equal(request.parameters, undefined);
  assert.equal(request.systemPrompt, undefined);
});

test("zero, the empty text and the empty list are sent, as they are not absent", async (t) => {
  const zeros = { temperature: 0, topP: 0, topK: 0, minP: 0, maxTokens: 0, seed: 0, topLogprobs: 0, model: "" };
  const penalties = { presencePenalty: 0, frequencyPenalty: 0, repetitionPenalty: 0 };
  const request = await arrived(t, "Hi", { ...zeros, ...penalties, systemPrompt: "" });
  assert.deepEqual(request.parameters, v1.GenerationParameters.create({ ...zeros, ...penalties }));
  assert.equal(request.systemPrompt, "");
});

test("parameters arrive as their caller wrote them", async (t) => {
  const sameBothSides = {
    model: "small",
    temperature: 0.1,
    topP: 0.2,
    topK: -3,
    minP: 0.4,
    maxTokens: 2 ** 31 - 1,
    presencePenalty: -0.5,
    frequencyPenalty: 0.6,
    repetitionPenalty: 1.7,
    topLogprobs: 8,
  };
  const request = await arrived(t, "Hi", {
    ...sameBothSides,
    seed: -(2n ** 63n),
    stop: ["a", "b"],
    logitBias: { 0: -100, 70000: 2.5 },
    reasoningEffort: "xhigh",
  });
  const expected = v1.GenerationParameters.create({
    ...sameBothSides,
    seed: -(2n ** 63n),
    stop: ["a", "b"],
    logitBias: new Map([
      [0, -100],
      [70000, 2.5],
    ]),
    reasoningEffort: v1.ReasoningEffort.XHIGH,
  });
  assert.deepEqual(request.parameters, expected);
});

test("a single stop text, a Map of biases and an enum's number are taken too", async (t) => {
  const request = await arrived(t, "Hi", { stop: "x", logitBias: new Map([[5, 1]]), reasoningEffort: 77 });
  assert.deepEqual(request.parameters?.stop, ["x"]);
  assert.deepEqual(request.parameters?.logitBias, new Map([[5, 1]]));
  assert.equal(request.parameters?.reasoningEffort, 77);
});

test("every part of a conversation arrives, opaque state with it", async (t) => {
  const state = Uint8Array.of(0, 255, 16);
  const request = await arrived(t, [
    { role: "system", content: "Be brief." },
    {
      role: "user",
      parts: [
        { type: "text", text: "What is this?" },
        { type: "image", data: Uint8Array.of(1, 2), mimeType: "image/png" },
      ],
    },
    {
      role: "assistant",
      parts: [
        { type: "reasoning", text: "hm", providerState: state },
        { type: "tool_call", id: "1", name: "f", argumentsJson: "{}" },
      ],
    },
    { role: "tool", parts: [{ type: "tool_result", toolCallId: "1", content: "no", isError: true }] },
    { role: 9, parts: [] },
  ]);
  const encodedPart = (part: v1.Part["part"], providerState = new Uint8Array()) =>
    v1.Part.create({ part, providerState });
  const messages = [
    { role: v1.Role.SYSTEM, parts: [encodedPart({ $case: "text", value: "Be brief." })] },
    {
      role: v1.Role.USER,
      parts: [
        encodedPart({ $case: "text", value: "What is this?" }),
        encodedPart({ $case: "image", value: { data: Uint8Array.of(1, 2), mimeType: "image/png" } }),
      ],
    },
    {
      role: v1.Role.ASSISTANT,
      parts: [
        encodedPart({ $case: "reasoning", value: { text: "hm" } }, state),
        encodedPart({ $case: "toolCall", value: { id: "1", name: "f", argumentsJson: "{}" } }),
      ],
    },
    {
      role: v1.Role.TOOL,
      parts: [encodedPart({ $case: "toolResult", value: { toolCallId: "1", content: "no", isError: true } })],
    },
    { role: 9, parts: [] },
  ];
  assert.deepEqual(plain(request.input), plain({ $case: "chat", value: { messages } }));
});

test("everything else of a request arrives", async (t) => {
  const request = await arrived(
    t,
    "Hi",
    {
      systemPrompt: "Be brief.",
      responseFormat: { type: "json_schema", schemaJson: "{}", name: "n", strict: false },
      tools: [{ name: "f" }, { name: "g", description: "G", parametersJsonSchema: '{"type":"object"}' }],
      toolChoice: { name: "f" },
      providerOptions: {
        a: { b: [1, null, "x", true, -0.5, undefined as never].slice(0, 5) },
        gone: undefined,
        __proto__: null,
      },
      requestId: "r",
      labels: { team: "blue", empty: "" },
      parametersPolicy: "drop_unsupported",
    },
    { llm: "other" },
  );
  assert.equal(request.llm, "other");
  assert.equal(request.systemPrompt, "Be brief.");
  const schema = { name: "n", schemaJson: "{}", strict: false };
  assert.deepEqual(request.responseFormat, { format: { $case: "jsonSchema", value: schema } });
  assert.deepEqual(request.tools, [
    { name: "f", description: "", parametersJsonSchema: "{}" },
    { name: "g", description: "G", parametersJsonSchema: '{"type":"object"}' },
  ]);
  assert.deepEqual(request.toolChoice, { choice: { $case: "name", value: "f" } });
  assert.deepEqual(request.providerOptions, { a: { b: [1, null, "x", true, -0.5] } });
  assert.equal(request.requestId, "r");
  assert.deepEqual([...request.labels].sort(), [
    ["empty", ""],
    ["team", "blue"],
  ]);
  assert.equal(request.parametersPolicy, v1.ParametersPolicy.DROP_UNSUPPORTED);
});

for (const [format, expected] of [
  [{ type: "json_object" }, { $case: "jsonObject", value: {} }],
  [
    { type: "regex", regex: "[0-9]" },
    { $case: "regex", value: "[0-9]" },
  ],
  [
    { type: "grammar", grammar: "start: A" },
    { $case: "grammar", value: "start: A" },
  ],
] as const) {
  test(`the answer format ${format.type} arrives`, async (t) => {
    assert.deepEqual((await arrived(t, "Hi", { responseFormat: format })).responseFormat, { format: expected });
  });
}

test("a rule for tools arrives as a mode", async (t) => {
  const request = await arrived(t, "Hi", { toolChoice: "required" });
  assert.deepEqual(request.toolChoice, { choice: { $case: "mode", value: v1.ToolChoiceMode.REQUIRED } });
});

test("a client's defaults go with every call, and a call's own options win", async (t) => {
  const defaults = { temperature: 0.5, topK: 3, systemPrompt: "Be brief.", timeout: 60 };
  const { llm, server } = await connect(t, { generate: () => v1.GenerateResponse.create() }, { defaults });
  await llm.generate("Hi", { temperature: 0, topK: undefined });
  const request = server.calls[0]?.request as v1.GenerateRequest;
  assert.deepEqual(request.parameters, v1.GenerationParameters.create({ temperature: 0, topK: 3 }));
  assert.equal(request.systemPrompt, "Be brief.");
  assert.ok(Number.isFinite(server.calls[0]?.deadline));
});

test("text of every kind arrives unchanged", async (t) => {
  for (const text of ["👩‍👩‍👧‍👦 𠀀", "e\u0301", "nul\0", "\ufeffmark", "\ufffd \uffff", "line\u2028"]) {
    assert.deepEqual((await arrived(t, text)).input, { $case: "prompt", value: text });
  }
});

/** Copies a value with bytes as plain arrays: those of a message are a Buffer. */
function plain(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_, entry) => (entry?.type === "Buffer" ? Uint8Array.from(entry.data) : entry)),
  );
}
