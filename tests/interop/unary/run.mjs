export async function run({ input, connect, report }) {
  const llm = connect(input.llm);
  const whole = await llm.complete(input.prompt, { systemPrompt: input.system_prompt });
  const cut = await llm.complete(input.prompt, { maxTokens: input.max_tokens });
  const stopped = await llm.complete(input.prompt, { stop: input.stop });
  return {
    text: await llm.generate(input.prompt),
    whole: report.completion(whole),
    cut: { text: cut.text, finish_reason: cut.finishReason },
    stopped: { text: stopped.text, finish_reason: stopped.finishReason, stop_sequence: stopped.stopSequence },
    timing_is_set: whole.timing.total > 0,
  };
}
