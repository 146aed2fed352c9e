// Leaves an answer before its end: the server stops generating it at once.
//
//     node cancel.mjs [HOST:PORT] [LLM]

import { GenerationTimeoutError, RemoteLLM } from "@abstractllm/client";

const [address = "127.0.0.1:50051", name] = process.argv.slice(2);
const llm = new RemoteLLM(address, { llm: name, defaults: { temperature: 0 } });

let number = 0;
for await (const piece of llm.streamText("Count from 1 to 20.")) {
  process.stdout.write(piece);
  number += 1;
  if (number === 5) break; // ends the generation, as an exception would
}
console.log(" ... enough");

try {
  await llm.generate("Count from 1 to 20.", { timeout: 0.001 });
} catch (error) {
  if (!(error instanceof GenerationTimeoutError)) throw error;
  console.log(`too late: ${error.message}`);
}

llm.close();
