export async function run({ input, connect, report }) {
  const providerOptions = { delay: input.delay, reply: "word ".repeat(input.words) };
  const llm = connect(input.llm);

  // Left before the first `next()`, so that nothing is sent.
  await llm.stream("never sent", { providerOptions }).return();

  const stream = llm.stream("after the first event", { providerOptions });
  const first = [report.event((await stream.next()).value).type];
  await stream.return();

  let midway = 0;
  for await (const _ of llm.stream("in the middle", { providerOptions })) {
    midway += 1;
    if (midway === input.after_more_events) break;
  }

  // Aborted while the call waits for its answer.
  const signal = AbortSignal.timeout(300);
  return { first, midway, error: await report.outcome(llm.generate("whole", { providerOptions, signal })) };
}
