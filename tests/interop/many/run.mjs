export async function run({ input, connect }) {
  const llm = connect(input.llm);
  await llm.generate("connects");
  let right = 0;
  let pieces = 0;
  const firstPieces = [];

  const runStream = async (stream) => {
    const prompt = Array(input.words).fill(stream).join(" ");
    for (let answer = 0; answer < input.answers; answer += 1) {
      const start = performance.now();
      const received = [];
      for await (const piece of llm.streamText(prompt)) {
        if (received.length === 0) firstPieces.push((performance.now() - start) / 1000);
        received.push(piece);
      }
      pieces += received.length;
      right += received.join("") === prompt ? 1 : 0;
    }
  };

  const start = performance.now();
  await Promise.all(Array.from({ length: input.streams }, (_, stream) => runStream(stream)));
  const seconds = (performance.now() - start) / 1000;
  firstPieces.sort((a, b) => a - b);
  return { right, pieces, seconds, first_piece_seconds: firstPieces[Math.floor(firstPieces.length / 2)] };
}
