import assert from "node:assert/strict";
import { test } from "node:test";
import { IncompleteStreamError, InternalError, ProviderUnavailableError } from "@abstractllm/client";
import * as v1 from "@abstractllm/client/v1";
import { status } from "@grpc/grpc-js";
import { all, connect, events, fail, failure } from "./server.js";

const span = (seconds: number, nanos: number) => ({ seconds: BigInt(seconds), nanos });
const top = { tokenId: 7, token: "\ufffd", tokenBytes: Uint8Array.of(0xff), logprob: -0.5 };

test("a whole answer is decoded field by field", async (t) => {
  const { llm } = await connect(t, {
    generate: () =>
      v1.GenerateResponse.create({
        id: "1",
        text: "Hi",
        message: {
          role: v1.Role.ASSISTANT,
          parts: [
            { part: { $case: "reasoning", value: { text: "hm" } }, providerState: Uint8Array.of(1) },
            { part: { $case: "text", value: "Hi" } },
            { part: { $case: "toolCall", value: { id: "c", name: "f", argumentsJson: "{}" } } },
            {},
          ],
        },
        finishReason: v1.FinishReason.STOP_SEQUENCE,
        stopSequence: "!",
        usage: { inputTokens: 0n, outputTokens: 2n ** 53n - 1n },
        llm: "a",
        provider: "b",
        model: "c",
        attempts: [
          {
            llm: "x",
            provider: "y",
            model: "z",
            errorReason: v1.ErrorReason.OVERLOADED,
            message: "busy",
            duration: span(1, 5e8),
          },
          { llm: "a", provider: "b", model: "c" },
        ],
        timing: { queued: span(0, 0), total: span(3, 1) },
        logprobs: [{ ...top, top: [top] }],
        droppedParameters: ["parameters.top_k"],
      }),
  });
  assert.deepEqual(await llm.complete("Hi"), {
    id: "1",
    text: "Hi",
    message: {
      role: "assistant",
      parts: [
        { type: "reasoning", text: "hm", providerState: Uint8Array.of(1) },
        { type: "text", text: "Hi" },
        { type: "tool_call", id: "c", name: "f", argumentsJson: "{}" },
      ],
    },
    finishReason: "stop_sequence",
    stopSequence: "!",
    usage: { inputTokens: 0, outputTokens: 2 ** 53 - 1, cachedInputTokens: undefined, reasoningTokens: undefined },
    llm: "a",
    provider: "b",
    model: "c",
    attempts: [
      { llm: "x", provider: "y", model: "z", errorReason: "OVERLOADED", message: "busy", duration: 1.5 },
      { llm: "a", provider: "b", model: "c", errorReason: undefined, message: "", duration: 0 },
    ],
    timing: { queued: 0, firstToken: undefined, total: 3.000000001 },
    logprobs: [{ ...top, top: [top] }],
    droppedParameters: ["parameters.top_k"],
  });
});

test("a count beyond 2^53 is an error, never a rounded number", async (t) => {
  const { llm } = await connect(t, {
    generate: () => v1.GenerateResponse.create({ usage: { inputTokens: 2n ** 53n } }),
  });
  const error = await failure(llm.complete("Hi"), InternalError);
  assert.equal(error.field, "usage.input_tokens");
});

test("a stream gives every event in order, and skips those of newer contracts", async (t) => {
  const { llm } = await connect(t, {
    *streamGenerate() {
      yield events.started();
      yield v1.StreamGenerateResponse.create(); // its kind is not known to this client
      yield v1.StreamGenerateResponse.create({ event: { $case: "reasoningDelta", value: { text: "hm" } } });
      yield events.text("Hi");
      const call = { index: 1, id: "c", name: "f", argumentsFragment: "{" };
      yield v1.StreamGenerateResponse.create({ event: { $case: "toolCallDelta", value: call } });
      yield events.finished(99 as v1.FinishReason);
    },
  });
  const unknown = {
    inputTokens: undefined,
    outputTokens: undefined,
    cachedInputTokens: undefined,
    reasoningTokens: undefined,
  };
  assert.deepEqual(await all(llm.stream("Hi")), [
    { type: "started", id: "1", llm: "echo", provider: "fake", model: "m", droppedParameters: [] },
    { type: "reasoning_delta", text: "hm" },
    { type: "text_delta", text: "Hi", logprobs: [] },
    { type: "tool_call_delta", index: 1, id: "c", name: "f", argumentsFragment: "{" },
    {
      type: "finished",
      finishReason: 99,
      stopSequence: "",
      usage: unknown,
      attempts: [],
      timing: { queued: undefined, firstToken: undefined, total: undefined },
      message: undefined,
    },
  ]);
});

test("unknown enum values come through as their numbers", async (t) => {
  const { llm } = await connect(t, {
    generate: () =>
      v1.GenerateResponse.create({
        finishReason: 50 as v1.FinishReason,
        message: { role: 51 as v1.Role },
        attempts: [{ errorReason: 52 as v1.ErrorReason }],
      }),
    listLlms: () => v1.ListLlmsResponse.create({ llms: [{ state: 53 as v1.LlmState }] }),
  });
  const { finishReason, message, attempts } = await llm.complete("Hi");
  assert.deepEqual([finishReason, message.role, attempts[0]?.errorReason], [50, 51, 52]);
  assert.equal((await llm.listLlms())[0]?.state, 53);
});

test("pieces of text come alone, without the empty ones", async (t) => {
  const { llm } = await connect(t, {
    streamGenerate: () => [events.started(), events.text("a"), events.text(""), events.text("b"), events.finished()],
  });
  assert.deepEqual(await all(llm.streamText("Hi")), ["a", "b"]);
});

test("a stream that breaks keeps the text that had come", async (t) => {
  const { llm } = await connect(t, {
    *streamGenerate() {
      yield events.started();
      yield events.text("half ");
      yield events.text("an");
      fail(status.UNAVAILABLE, "gone", { "grpc-retry-pushback-ms": "-1" });
    },
  });
  const pieces: string[] = [];
  const read = async () => {
    for await (const piece of llm.streamText("Hi")) pieces.push(piece);
  };
  const error = await failure(read(), ProviderUnavailableError);
  assert.equal(error.partialText, "half an");
  assert.equal(pieces.join(""), "half an");
});

test("a stream that ends without `finished` is an error", async (t) => {
  const { llm } = await connect(t, { streamGenerate: () => [events.started(), events.text("half")] });
  const error = await failure(all(llm.stream("Hi")), IncompleteStreamError);
  assert.deepEqual([error.reason, error.retryable, error.partialText], ["INCOMPLETE_STREAM", false, "half"]);
});

test("an iterator that is over stays over", async (t) => {
  const { llm } = await connect(t, { streamGenerate: () => [events.finished()] });
  const stream = llm.stream("Hi");
  assert.equal((await all(stream)).length, 1);
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
});

test("a slow reader gets everything", async (t) => {
  const text = "x".repeat(10_000);
  const { llm } = await connect(t, {
    *streamGenerate() {
      for (let index = 0; index < 500; index += 1) yield events.text(text);
      yield events.finished();
    },
  });
  let length = 0;
  for await (const piece of llm.streamText("Hi")) {
    length += piece.length;
    await new Promise(setImmediate);
  }
  assert.equal(length, 5_000_000);
});
