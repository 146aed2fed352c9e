// Asks a question, and prints the answer and its tokens.
//
//     node ask.mjs [HOST:PORT] [LLM]

import { RemoteLLM } from "@abstractllm/client";

const [address = "127.0.0.1:50051", name] = process.argv.slice(2);
const llm = new RemoteLLM(address, { llm: name });

console.log(await llm.generate("What is the capital of France?", { temperature: 0 }));

const answer = await llm.complete("What is 7 + 5?", { temperature: 0 });
const { inputTokens, outputTokens } = answer.usage;
console.log(`${answer.text}  (${answer.model}: ${inputTokens} + ${outputTokens} tokens)`);

llm.close();
