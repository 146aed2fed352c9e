import assert from "node:assert/strict";
import { test } from "node:test";
import { GenerationCancelledError, GenerationTimeoutError } from "@abstractllm/client";
import * as v1 from "@abstractllm/client/v1";
import { all, connect, events, failure, type Handlers } from "./server.js";

const never = new Promise(() => {});

/** Answers that begin and never end. */
const endless: Handlers = {
  generate: () => never,
  async *streamGenerate() {
    yield events.started();
    yield events.text("a");
    yield events.text("b");
    await never;
  },
  async *loadModel() {
    yield v1.LoadModelResponse.create();
    await never;
  },
};

test("breaking out of a loop cancels the call at the server", async (t) => {
  const { llm, server } = await connect(t, endless);
  for await (const piece of llm.streamText("Hi")) {
    assert.equal(piece, "a");
    break;
  }
  await server.calls[0]?.cancelled;
});

test("an exception in a loop cancels the call at the server, and comes through", async (t) => {
  const { llm, server } = await connect(t, endless);
  const read = async () => {
    for await (const _ of llm.stream("Hi")) throw new RangeError("of the caller");
  };
  await failure(read(), RangeError);
  await server.calls[0]?.cancelled;
});

test("leaving an iterator while it waits ends the waiting at once", async (t) => {
  const { llm, server } = await connect(t, endless);
  const stream = llm.streamText("Hi");
  await stream.next();
  await stream.next();
  const waiting = stream.next();
  await stream.return?.();
  assert.deepEqual(await waiting, { done: true, value: undefined });
  await server.calls[0]?.cancelled;
});

test("an iterator whose next() is never called makes no call", async (t) => {
  const { llm, server } = await connect(t, endless);
  await llm.stream("Hi").return?.();
  await failure(llm.generate("Hi", { timeout: 0.1 }), GenerationTimeoutError);
  assert.deepEqual(
    server.calls.map(({ method }) => method),
    ["generate"],
  );
});

test("a signal ends a waiting call at the server, and is the error's cause", async (t) => {
  const { llm, server } = await connect(t, endless);
  const controller = new AbortController();
  const answer = llm.generate("Hi", { signal: controller.signal });
  while (server.calls.length === 0) await new Promise(setImmediate);
  controller.abort("enough");
  const error = await failure(answer, GenerationCancelledError);
  assert.deepEqual([error.reason, error.cause, error.retryable], ["CANCELLED", "enough", false]);
  await server.calls[0]?.cancelled;
});

test("a signal ends a stream with the text that had come", async (t) => {
  const { llm, server } = await connect(t, endless);
  const controller = new AbortController();
  const read = async () => {
    for await (const piece of llm.streamText("Hi", { signal: controller.signal })) {
      if (piece === "b") setImmediate(() => controller.abort());
    }
  };
  const error = await failure(read(), GenerationCancelledError);
  assert.equal(error.partialText, "ab");
  await server.calls[0]?.cancelled;
});

test("a signal that is aborted already lets no call begin", async (t) => {
  const { llm, server } = await connect(t, endless);
  const signal = AbortSignal.abort("before");
  assert.equal((await failure(llm.generate("Hi", { signal }), GenerationCancelledError)).cause, "before");
  await failure(all(llm.stream("Hi", { signal })), GenerationCancelledError);
  assert.equal(server.calls.length, 0);
});

test("a signal that outlives its calls keeps nothing of them", async (t) => {
  const { llm } = await connect(t, { streamGenerate: () => [events.finished()] });
  const { signal } = new AbortController();
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...of: Parameters<typeof add>) => {
    listeners += 1;
    add(...of);
  };
  signal.removeEventListener = (...of: Parameters<typeof remove>) => {
    listeners -= 1;
    remove(...of);
  };
  await all(llm.stream("Hi", { signal }));
  for await (const _ of llm.stream("Hi", { signal })) break;
  assert.equal(listeners, 0);
});

test("one signal ends many calls, without a warning", async (t) => {
  const { llm, server } = await connect(t, endless);
  const warnings: Error[] = [];
  const note = (warning: Error) => warnings.push(warning);
  process.on("warning", note);
  t.after(() => process.off("warning", note));
  const controller = new AbortController();
  const answers = Array.from({ length: 20 }, () => llm.generate("Hi", { signal: controller.signal }));
  while (server.calls.length < answers.length) await new Promise(setImmediate);
  controller.abort();
  await Promise.all(answers.map((answer) => failure(answer, GenerationCancelledError)));
  assert.deepEqual(warnings, []);
});

test("a deadline reaches the server and ends the call with its own error", async (t) => {
  const { llm, server } = await connect(t, endless);
  const before = Date.now();
  const error = await failure(llm.generate("Hi", { timeout: 0.2 }), GenerationTimeoutError);
  assert.deepEqual([error.reason, error.retryable], ["TIMEOUT", false]);
  const deadline = server.calls[0]?.deadline ?? 0;
  assert.ok(deadline > before && deadline < Date.now() + 1000);
  const streamed = await failure(all(llm.stream("Hi", { timeout: 0.2 })), GenerationTimeoutError);
  assert.equal(streamed.partialText, "ab");
});

test("a call without a timeout has no deadline, and a client's bounds all but progress", async (t) => {
  const { llm, server } = await connect(t, endless);
  await failure(llm.generate("Hi", { signal: AbortSignal.timeout(50) }), GenerationCancelledError);
  assert.equal(server.calls[0]?.deadline, Number.POSITIVE_INFINITY);

  const bounded = await connect(t, endless, { defaults: { timeout: 0.1 } });
  await failure(bounded.llm.generate("Hi"), GenerationTimeoutError);
  const loading = bounded.llm.loadModel({ signal: AbortSignal.timeout(300) });
  await failure(all(loading), GenerationCancelledError);
});

test("closing the client ends its calls, and refuses new ones", async (t) => {
  const { llm, server } = await connect(t, endless);
  const whole = llm.generate("Hi");
  const stream = llm.streamText("Hi");
  await stream.next();
  await stream.next();
  const streamed = all(stream);
  while (server.calls.length < 2) await new Promise(setImmediate);
  llm.close();
  assert.equal((await failure(whole, GenerationCancelledError)).message, "the client is closed");
  const error = await failure(streamed, GenerationCancelledError);
  assert.deepEqual([error.message, error.partialText], ["the client is closed", "ab"]);
  await failure(llm.generate("Hi"), GenerationCancelledError);
  await failure(all(llm.stream("Hi")), GenerationCancelledError);
  llm.close();
});

test("`using` closes the client", async (t) => {
  const { llm } = await connect(t, endless);
  {
    using scoped = llm;
    assert.equal(scoped.llm, "");
  }
  await failure(llm.generate("Hi"), GenerationCancelledError);
});
