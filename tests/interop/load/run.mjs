export async function run({ input, connect, report }) {
  const llm = connect(input.llm, { defaults: { temperature: 0 } });
  const currentState = async () => (await llm.listLlms()).find(({ name }) => name === llm.llm).state;

  const reports = await report.all(llm.loadModel());
  const ready = await currentState();
  const answer = await llm.generate("What is the capital of France?");
  const stream = llm.stream(input.prompt, { logitBias: { 4: -100 }, maxTokens: 2000 });
  await stream.next();
  const inUse = await report.outcome(report.all(llm.unloadModel()));
  await stream.return();
  const unloading = (await report.all(llm.unloadModel({ force: true }))).at(-1).state;
  return {
    loading: {
      states: [...new Set(reports.map(({ state }) => state))].sort(),
      fractions_are_fractions: reports.every(({ fraction = 0 }) => fraction >= 0 && fraction <= 1),
    },
    ready,
    answer,
    in_use: inUse,
    unloading,
    after: await currentState(),
    unsupported: await report.outcome(report.all(connect("echo").unloadModel())),
  };
}
