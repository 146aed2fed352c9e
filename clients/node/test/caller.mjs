/** Calls a server inside of a span, and prints the span's trace id. */

import { RemoteLLM } from "@abstractllm/client";
import { trace } from "@opentelemetry/api";

const llm = new RemoteLLM(process.argv[2]);
await trace.getTracer("test").startActiveSpan("caller", async (span) => {
  await llm.generate("Hi");
  for await (const _ of llm.stream("Hi"));
  span.end();
  console.log(span.spanContext().traceId);
});
llm.close();
