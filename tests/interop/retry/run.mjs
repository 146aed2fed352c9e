export async function run({ input, connect, ask, report }) {
  const llm = connect("flaky", { defaults: { timeout: 60 } });
  const answer = (requestId, script = input[requestId]) =>
    llm.generate(JSON.stringify(script), { requestId }).catch(({ reason }) => reason);
  const outcomes = {
    overloaded: await answer("overloaded"),
    unavailable: await report.all(llm.streamText(JSON.stringify(input.unavailable), { requestId: "unavailable" })),
    always: await answer("always"),
    quota: await answer("quota"),
    invalid: await answer("invalid"),
    large: await answer("large", { ...input.overloaded, padding: "x".repeat(input.padding) }),
  };

  const restarted = connect("", { server: "restarted", defaults: { timeout: 60 } });
  const before = await restarted.generate("before");
  await ask("restart", { seconds: input.down });
  return { ...outcomes, restarted: [before, await restarted.generate("after")] };
}
