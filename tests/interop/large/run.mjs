export async function run({ input, connect, report }) {
  const prompt = input.letter.repeat(input.prompt_bytes);
  const mirror = connect("mirror");
  const echo = connect("echo");
  const answer = await echo.generate(input.letter.repeat(input.answer_bytes));
  return {
    arrived: JSON.parse(await mirror.generate(prompt)).messages[0].parts[0].text,
    came_back: { size: Buffer.byteLength(answer), sha256: report.digest(answer) },
    streamed: (await report.all(echo.streamText(prompt))).reduce((sum, piece) => sum + piece.length, 0),
    request_refused: await echo.generate(input.letter.repeat(input.too_many_bytes)).catch(report.error),
    answer_refused: await echo.generate(prompt).catch(report.error),
  };
}
