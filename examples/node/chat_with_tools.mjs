// Lets a model call a function of this program, and answer with its result.
//
//     node chat_with_tools.mjs [HOST:PORT] [LLM]
//
// The LLM must take tools: a hosted one, or a local model whose chat template has a place for them.

import { RemoteLLM } from "@abstractllm/client";

const PARAMETERS = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const WEATHER = {
  name: "weather",
  description: "Tells the weather in a city",
  parametersJsonSchema: JSON.stringify(PARAMETERS),
};

/** Returns the weather; the function that the model can call. */
function weather({ city }) {
  return `It is sunny in ${city}.`;
}

const [address = "127.0.0.1:50051", name] = process.argv.slice(2);
const llm = new RemoteLLM(address, { llm: name });
const messages = [{ role: "user", content: "What is the weather in Paris?" }];

let answer = await llm.complete(messages, { tools: [WEATHER] });
let calls = answer.message.parts.filter((part) => part.type === "tool_call");
while (calls.length > 0) {
  messages.push(answer.message);
  for (const { id, name, argumentsJson } of calls) {
    console.log(`calls ${name} with ${argumentsJson}`);
    const content = weather(JSON.parse(argumentsJson));
    messages.push({ role: "tool", parts: [{ type: "tool_result", toolCallId: id, content }] });
  }
  answer = await llm.complete(messages, { tools: [WEATHER] });
  calls = answer.message.parts.filter((part) => part.type === "tool_call");
}
console.log(answer.text);

llm.close();
