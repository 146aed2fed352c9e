export async function run({ input, connect, report }) {
  const providerOptions = { delay: input.delay, reply: "word ".repeat(input.words) };
  const llm = connect(input.llm, { defaults: { providerOptions, timeout: input.timeout } });
  const whole = await report.outcome(llm.generate("hi"), "retryable");
  let pieces = "";
  try {
    for await (const piece of llm.streamText("hi")) pieces += piece;
  } catch (error) {
    const streamed = {
      class: error.name,
      reason: error.reason,
      retryable: error.retryable,
      partial_is_what_came: error.partialText === pieces,
      something_came: pieces !== "",
    };
    return { whole, streamed };
  }
  return { whole, streamed: null };
}
