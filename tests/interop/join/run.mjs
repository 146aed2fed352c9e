export async function run({ input, connect, report }) {
  const llm = connect(input.llm, { defaults: { temperature: 0 } });
  const answers = [];
  for (const prompt of input.prompts) {
    const joined = (await report.all(llm.streamText(prompt))).join("");
    answers.push({ joined, whole: await llm.generate(prompt) });
  }
  return answers;
}
