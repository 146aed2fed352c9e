import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as v1 from "@abstractllm/client/v1";
import { context, propagation, trace } from "@opentelemetry/api";
import { NodeTracerProvider } from "@opentelemetry/sdk-trace-node";
import { connect, events, type Handlers, serve } from "./server.js";

const answers: Handlers = {
  generate: () => v1.GenerateResponse.create(),
  streamGenerate: () => [events.finished()],
};

test("the ambient trace context goes with a call, by a function that gives it", async (t) => {
  const provider = new NodeTracerProvider();
  provider.register();
  t.after(() => provider.shutdown());
  const metadata = () => {
    const carrier: Record<string, string> = {};
    propagation.inject(context.active(), carrier);
    return carrier;
  };
  const { llm, server } = await connect(t, answers, { metadata });
  const span = trace.getTracer("test").startSpan("caller");
  await context.with(trace.setSpan(context.active(), span), () => llm.generate("Hi"));
  await llm.generate("Hi");
  const { traceId, spanId } = span.spanContext();
  assert.deepEqual(server.calls[0]?.metadata.get("traceparent"), [`00-${traceId}-${spanId}-01`]);
  assert.deepEqual(server.calls[1]?.metadata.get("traceparent"), []);
});

test("OpenTelemetry's own instrumentation of gRPC traces the client's calls", async (t) => {
  const { address, calls } = await serve(t, answers);
  const [preload, caller] = ["instrumented", "caller"].map((name) =>
    fileURLToPath(new URL(`../test/${name}.mjs`, import.meta.url)),
  );
  const command = ["--no-warnings", "--import", String(preload), String(caller), address];
  const { stdout } = await promisify(execFile)(process.execPath, command);
  const traceId = stdout.trim();
  assert.match(traceId, /^[0-9a-f]{32}$/);
  assert.equal(calls.length, 2);
  for (const { metadata } of calls) assert.match(String(metadata.get("traceparent")), new RegExp(`^00-${traceId}-`));
});
