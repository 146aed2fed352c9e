export async function run({ input, connect, report }) {
  const echo = connect("echo");
  const mirror = connect("mirror");
  const observed = [];
  for (const text of input.texts) {
    const [message] = JSON.parse(await mirror.generate("hi", { systemPrompt: text })).messages;
    observed.push({
      whole: await echo.generate(text),
      joined: (await report.all(echo.streamText(text))).join(""),
      chat: await echo.generate([{ role: "user", content: text }]),
      system: message.parts[0].text,
    });
  }
  return observed;
}
