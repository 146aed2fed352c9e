// Prints an answer as it comes, first its text alone, then every event; then two answers at the same time.
//
//     node stream.mjs [HOST:PORT] [LLM]

import { RemoteLLM } from "@abstractllm/client";

const [address = "127.0.0.1:50051", name] = process.argv.slice(2);
const llm = new RemoteLLM(address, { llm: name, defaults: { temperature: 0 } });

for await (const piece of llm.streamText("Count from 1 to 10.")) process.stdout.write(piece);
console.log();

for await (const event of llm.stream("What is the opposite of hot?")) {
  if (event.type === "text_delta") process.stdout.write(event.text);
  if (event.type === "finished") {
    console.log(`  (${event.finishReason}, first token after ${event.timing.firstToken?.toFixed(3)} s)`);
  }
}

const questions = ["What is the capital of Italy?", "What is the capital of Japan?"];
for (const text of await Promise.all(questions.map((question) => llm.generate(question)))) console.log(text);

llm.close();
