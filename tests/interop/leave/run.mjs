export async function run({ input, connect, ask }) {
  const defaults = { temperature: 0, maxTokens: input.max_tokens, logitBias: input.logit_bias };
  const llm = connect(input.llm, { defaults });
  const left = [];
  for (let time = 0; time < input.times; time += 1) {
    let pieces = 0;
    for await (const _ of llm.streamText(input.prompt)) {
      pieces += 1;
      if (pieces === input.pieces) break;
    }
    left.push({ pieces, ...(await ask("steps_until_idle")) });
  }
  return { left };
}
