import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigurationError, InvalidRequestError, type LlmConfigChanges } from "@abstractllm/client";
import * as v1 from "@abstractllm/client/v1";
import { all, connect, failure } from "./server.js";

test("a configuration is flat, without unset keys, and has its etag", async (t) => {
  const { llm, server } = await connect(
    t,
    {
      getConfig: () =>
        v1.GetConfigResponse.create({
          etag: "1",
          config: {
            model: "m",
            systemPrompt: "",
            parameters: {
              temperature: 0,
              seed: 2n ** 53n,
              stop: ["x"],
              logitBias: new Map([[5, 1]]),
              reasoningEffort: 9 as never,
            },
            timeout: { seconds: 1n, nanos: 500_000_000 },
            maxRetries: 0,
            quantization: v1.Quantization.INT8,
            providerOptions: { a: [1, null] },
          },
        }),
    },
    { llm: "named" },
  );
  assert.deepEqual(await llm.getConfig(), {
    etag: "1",
    config: {
      model: "m",
      systemPrompt: "",
      temperature: 0,
      seed: 2n ** 53n,
      stop: ["x"],
      logitBias: { 5: 1 },
      reasoningEffort: 9,
      timeout: 1.5,
      maxRetries: 0,
      quantization: "int8",
      providerOptions: { a: [1, null] },
    },
  });
  assert.equal(server.calls[0]?.request.llm, "named");
});

test("a change sends a mask of exactly its keys", async (t) => {
  const { llm, server } = await connect(t, { setConfig: () => v1.SetConfigResponse.create({ etag: "2" }) });
  const changes: LlmConfigChanges = {
    model: "m",
    systemPrompt: null,
    timeout: "1.5m",
    keepAlive: null,
    maxRetries: 0,
    quantization: "int4",
    providerOptions: { replace: true },
    temperature: 0,
    topP: null,
    seed: 7,
    minP: undefined,
  };
  const answer = await llm.setConfig(changes, { etag: "1", validateOnly: true });
  assert.deepEqual(answer, { etag: "2", config: {} });
  assert.deepEqual(
    server.calls[0]?.request,
    v1.SetConfigRequest.create({
      config: {
        model: "m",
        timeout: { seconds: 90n, nanos: 0 },
        maxRetries: 0,
        quantization: v1.Quantization.INT4,
        providerOptions: { replace: true },
        parameters: { temperature: 0, seed: 7 },
      },
      updateMask: [
        "model",
        "system_prompt",
        "timeout",
        "keep_alive",
        "max_retries",
        "quantization",
        "provider_options",
        "parameters.temperature",
        "parameters.top_p",
        "parameters.seed",
      ],
      etag: "1",
      validateOnly: true,
    }),
  );
});

for (const [changes, field] of [
  [{ apiKey: "x" }, "apiKey"],
  [{ parameters: {} }, "parameters"],
  [{ timeout: "soon" }, "timeout"],
  [{ timeout: 604_801 }, "timeout"],
  [{ keepAlive: 0 }, "keep_alive"],
  [{ temperature: "1" }, "parameters.temperature"],
  [{ quantization: "int2" }, "quantization"],
] as const) {
  test(`a change of ${field} to ${JSON.stringify(Object.values(changes)[0])} is refused`, async (t) => {
    const { llm, server } = await connect(t, {});
    assert.equal((await failure(llm.setConfig(changes as never), ConfigurationError)).field, field);
    assert.equal(server.calls.length, 0);
  });
}

test("all pages of the cache are listed", async (t) => {
  const time = { seconds: 1_700_000_000n, nanos: 123_456_789 };
  const pages: Record<string, object> = {
    "": {
      models: [{ name: "a", revisions: ["r"], sizeBytes: 5n, lastUsedTime: time, usedBy: ["l"] }],
      nextPageToken: "2",
    },
    "2": { models: [{ name: "b", partial: true }], nextPageToken: "" },
  };
  const { llm, server } = await connect(t, {
    listCachedModels: ({ request }) => v1.ListCachedModelsResponse.create(pages[request.pageToken]),
  });
  const empty = { lastUsedTime: undefined, lastModifiedTime: undefined, usedBy: [], revisions: [], partial: false };
  assert.deepEqual(await llm.listCachedModels(), [
    { ...empty, name: "a", revisions: ["r"], sizeBytes: 5, lastUsedTime: new Date(1_700_000_000_123), usedBy: ["l"] },
    { ...empty, name: "b", sizeBytes: 0, partial: true },
  ]);
  assert.deepEqual(
    server.calls.map(({ request }) => [request.pageSize, request.pageToken]),
    [
      [1000, ""],
      [1000, "2"],
    ],
  );
});

test("one model or all are cleared; nothing, or both, are refused", async (t) => {
  const { llm, server } = await connect(t, {
    clearCache: () => v1.ClearCacheResponse.create({ removed: ["a"], freedBytes: 5n }),
  });
  assert.deepEqual(await llm.clearModelCache({ model: "a" }, { dryRun: true }), { removed: ["a"], freedBytes: 5 });
  await llm.clearModelCache({ all: true });
  const { calls } = server;
  assert.deepEqual(calls[0]?.request, { llm: "", target: { $case: "model", value: "a" }, dryRun: true });
  assert.deepEqual(calls[1]?.request, { llm: "", target: { $case: "all", value: {} }, dryRun: false });
  for (const target of [{}, { model: "a", all: true }, { all: false }]) {
    const error = await failure(llm.clearModelCache(target as never), InvalidRequestError);
    assert.deepEqual([error.field, error.limit], ["target", "model or all"]);
  }
  assert.equal(calls.length, 2);
});

test("progress comes as reports", async (t) => {
  const { llm, server } = await connect(
    t,
    {
      pullModel: () => [
        v1.PullModelResponse.create({ file: "f", fileBytesDone: 1n, fileBytesTotal: 2n, bytesDone: 3n }),
        v1.PullModelResponse.create({ bytesDone: 4n, bytesTotal: 4n, done: true }),
      ],
      loadModel: () => [v1.LoadModelResponse.create({ state: v1.LlmState.LOADING, phase: "weights", fraction: 0 })],
      unloadModel: () => [v1.UnloadModelResponse.create({ state: v1.LlmState.UNLOADED, running: 2 })],
    },
    { llm: "l" },
  );
  assert.deepEqual(await all(llm.pullModel({ model: "m" })), [
    { file: "f", fileBytesDone: 1, fileBytesTotal: 2, bytesDone: 3, bytesTotal: undefined, done: false },
    { file: "", fileBytesDone: 0, fileBytesTotal: undefined, bytesDone: 4, bytesTotal: 4, done: true },
  ]);
  assert.deepEqual(await all(llm.loadModel()), [{ state: "loading", phase: "weights", fraction: 0 }]);
  assert.deepEqual(await all(llm.unloadModel({ force: true })), [{ state: "unloaded", running: 2 }]);
  assert.deepEqual(
    server.calls.map(({ request }) => request),
    [{ llm: "l", model: "m" }, { llm: "l" }, { llm: "l", force: true }],
  );
});

test("counts of tokens and capabilities are those of the client's LLM, model, system prompt and tools", async (t) => {
  const { llm, server } = await connect(
    t,
    {
      countTokens: () => v1.CountTokensResponse.create({ inputTokens: 5n }),
      getCapabilities: () => v1.GetCapabilitiesResponse.create({ capabilities: { tools: true, contextWindow: 8n } }),
      listLlms: () => v1.ListLlmsResponse.create({ llms: [{ name: "l", state: v1.LlmState.READY, memoryBytes: 1n }] }),
    },
    { llm: "l", defaults: { model: "m", systemPrompt: "s", tools: [{ name: "f" }], temperature: 1 } },
  );
  assert.equal(await llm.countTokens("Hi"), 5);
  const { tools, contextWindow, maxConcurrentRequests } = await llm.getCapabilities();
  assert.deepEqual([tools, contextWindow, maxConcurrentRequests], [true, 8, undefined]);
  const [info] = await llm.listLlms();
  assert.deepEqual([info?.name, info?.state, info?.memoryBytes], ["l", "ready", 1]);
  assert.deepEqual(
    server.calls[0]?.request,
    v1.CountTokensRequest.create({
      llm: "l",
      input: { $case: "prompt", value: "Hi" },
      systemPrompt: "s",
      tools: [{ name: "f", parametersJsonSchema: "{}" }],
      model: "m",
    }),
  );
  assert.deepEqual(server.calls[1]?.request, { llm: "l", model: "m" });
});
