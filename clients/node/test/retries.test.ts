import assert from "node:assert/strict";
import { test } from "node:test";
import {
  AbstractLLMError,
  GenerationCancelledError,
  GenerationTimeoutError,
  OverloadedError,
  ProviderUnavailableError,
} from "@abstractllm/client";
import * as v1 from "@abstractllm/client/v1";
import { status } from "@grpc/grpc-js";
import { all, client, connect, events, fail, failure, type Handlers, serve } from "./server.js";

/** Fails a number of times, then answers with the number of the attempt. */
function failing(times: number, code: status, pushback?: string): Handlers {
  const trailers: Record<string, string> = pushback === undefined ? {} : { "grpc-retry-pushback-ms": pushback };
  let attempts = 0;
  const attempt = () => {
    attempts += 1;
    if (attempts <= times) fail(code, "synthetic", trailers);
    return `attempt ${attempts}`;
  };
  return {
    generate: () => v1.GenerateResponse.create({ text: attempt() }),
    *streamGenerate() {
      yield events.text(attempt());
      yield events.finished();
    },
  };
}

for (const code of [status.UNAVAILABLE, status.RESOURCE_EXHAUSTED]) {
  test(`${status[code]} is tried again when the server says so`, async (t) => {
    const { llm, server } = await connect(t, failing(3, code, "5"));
    assert.equal(await llm.generate("Hi"), "attempt 4");
    assert.equal(server.calls.length, 4);
  });

  test(`${status[code]} is not tried again when the server says -1`, async (t) => {
    const { llm, server } = await connect(t, failing(1, code, "-1"));
    await failure(llm.generate("Hi"), AbstractLLMError);
    assert.equal(server.calls.length, 1);
  });
}

test("a stream is tried again before its first event, never after it", async (t) => {
  const { llm } = await connect(t, failing(2, status.UNAVAILABLE, "5"));
  assert.deepEqual(await all(llm.streamText("Hi")), ["attempt 3"]);

  const broken = await connect(t, {
    *streamGenerate() {
      yield events.started();
      fail(status.UNAVAILABLE, "gone", { "grpc-retry-pushback-ms": "5" });
    },
  });
  await failure(all(broken.llm.stream("Hi")), ProviderUnavailableError);
  assert.equal(broken.server.calls.length, 1);
});

test("five attempts are the most", async (t) => {
  const { llm, server } = await connect(t, failing(100, status.RESOURCE_EXHAUSTED, "5"));
  await failure(llm.generate("Hi"), OverloadedError);
  assert.equal(server.calls.length, 5);
});

test("other codes are not tried again", async (t) => {
  const { llm, server } = await connect(t, failing(1, status.INTERNAL, "5"));
  await failure(llm.generate("Hi"), AbstractLLMError);
  assert.equal(server.calls.length, 1);
});

test("without word of the server, the waits grow", async (t) => {
  const { llm, server } = await connect(t, failing(2, status.UNAVAILABLE));
  const before = Date.now();
  assert.equal(await llm.generate("Hi"), "attempt 3");
  assert.equal(server.calls.length, 3);
  assert.ok(Date.now() - before >= (200 + 400) * 0.8 - 50);
});

test("a request of 15 MiB is tried again", async (t) => {
  const { llm, server } = await connect(t, failing(1, status.UNAVAILABLE, "5"));
  assert.equal(await llm.generate("x".repeat(15 << 20)), "attempt 2");
  assert.equal(server.calls.length, 2);
});

test("four requests of 8 MiB are tried again at once, more than gRPC's default buffer of a channel holds", async (t) => {
  const { llm, server } = await connect(t, failing(4, status.UNAVAILABLE, "5"));
  const prompt = "x".repeat(8 << 20);
  const answers = await Promise.all([1, 2, 3, 4].map(() => llm.generate(prompt)));
  assert.deepEqual(answers.sort(), ["attempt 5", "attempt 6", "attempt 7", "attempt 8"]);
  assert.equal(server.calls.length, 8);
});

test("a call outlives a restart of the server, which ends its connections", async (t) => {
  const answer = { generate: () => v1.GenerateResponse.create({ text: "Hi" }) };
  const first = await serve(t, answer);
  const llm = client(t, first.address, { defaults: { timeout: 30 } });
  assert.equal(await llm.generate("Hi"), "Hi");
  first.stop();
  const waiting = llm.generate("Hi");
  await new Promise((resolve) => setTimeout(resolve, 300));
  await serve(t, answer, { address: first.address });
  assert.equal(await waiting, "Hi");
});

test("a call that is left while it waits for its next attempt makes none", async (t) => {
  const { llm, server } = await connect(t, failing(100, status.UNAVAILABLE, "200"));
  const signal = AbortSignal.timeout(50);
  await failure(llm.generate("Hi", { signal }), GenerationCancelledError);
  await failure(llm.generate("Hi", { timeout: 0.05 }), GenerationTimeoutError);
  const stream = llm.stream("Hi");
  const waiting = stream.next();
  while (server.calls.length < 3) await new Promise(setImmediate);
  await stream.return?.();
  assert.equal((await waiting).done, true);
  await new Promise((resolve) => setTimeout(resolve, 400));
  assert.equal(server.calls.length, 3);
});

test("retries can be switched off", async (t) => {
  const { llm, server } = await connect(t, failing(1, status.UNAVAILABLE, "5"), {
    channelOptions: { "grpc.enable_retries": 0 },
  });
  await failure(llm.generate("Hi"), ProviderUnavailableError);
  assert.equal(server.calls.length, 1);
});
