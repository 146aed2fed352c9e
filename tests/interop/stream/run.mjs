export async function run({ input, connect, report }) {
  const llm = connect(input.llm);
  const providerOptions = { script: input.script };
  return {
    events: (await report.all(llm.stream(input.prompt, { providerOptions }))).map(report.event),
    texts: await report.all(llm.streamText(input.prompt, { providerOptions: { reply: input.reply } })),
    whole: report.completion(await llm.complete(input.prompt, { providerOptions })),
  };
}
