export async function run({ input, connect }) {
  const messages = [
    { role: "system", content: input.system },
    { role: "user", content: input.user },
    { role: "assistant", parts: [{ type: "text", text: input.assistant }] },
    { role: "user", content: input.then },
  ];
  const llm = connect(input.llm);
  const messagesThatArrive = async (options) => JSON.parse(await llm.generate(messages, options)).messages;
  return {
    plain: await messagesThatArrive(),
    replaced: await messagesThatArrive({ systemPrompt: input.system_prompt }),
    removed: await messagesThatArrive({ systemPrompt: "" }),
    answer: await connect("local").generate([{ role: "user", content: input.question }], { temperature: 0 }),
  };
}
