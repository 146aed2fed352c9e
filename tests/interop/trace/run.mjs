export async function run({ input, connect, ask }) {
  const { traceparent, tracestate, other } = input;
  const llm = connect("", { server: "recorder" });
  const metadata = { traceparent, tracestate, "x-other": other };
  const answer = await llm.generate("hi", { metadata });
  return { answer, arrived: await ask("metadata", { names: Object.keys(metadata) }) };
}
