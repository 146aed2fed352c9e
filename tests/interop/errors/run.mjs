export async function run({ input, connect, report }) {
  const defaults = { requestId: input.request_id };
  const llm = connect("echo", { defaults });
  const failing = (reason) => ({
    error: reason,
    message: "synthetic",
    upstream_status: input.upstream_status,
    ...(input.retryable.includes(reason) && { retry_after: input.retry_after }),
  });
  const whole = [];
  for (const reason of input.reasons) {
    whole.push(await failure(llm.generate("hi", { providerOptions: { script: [failing(reason)] } })));
  }

  const events = [];
  let broken = null;
  const breaking = { error: "PROVIDER_UNAVAILABLE", upstream_status: input.upstream_status };
  const providerOptions = { script: [{ text: input.before }, breaking] };
  try {
    for await (const event of llm.stream("hi", { providerOptions })) events.push(report.event(event).type);
  } catch (error) {
    broken = report.error(error);
  }
  return {
    whole,
    broken: { events, error: broken },
    temperature: await failure(llm.generate("hi", { temperature: 5 })),
    nobody: await failure(connect("nobody", { defaults }).generate("hi")),
    option: await failure(llm.generate("hi", { providerOptions: { unheard_of: 1 } })),
  };

  async function failure(promise) {
    return promise.catch(report.error);
  }
}
