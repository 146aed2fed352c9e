// Asks for an answer that a JSON schema describes: whatever the model writes, it is valid.
//
//     node json_schema.mjs [HOST:PORT] [LLM]

import { RemoteLLM } from "@abstractllm/client";

const SCHEMA = {
  type: "object",
  properties: { city: { type: "string", maxLength: 20 }, inhabitants: { type: "integer", minimum: 0 } },
  required: ["city", "inhabitants"],
  additionalProperties: false,
};

const [address = "127.0.0.1:50051", name] = process.argv.slice(2);
const llm = new RemoteLLM(address, { llm: name });

const text = await llm.generate("What is the capital of France?", {
  temperature: 0,
  maxTokens: 100,
  responseFormat: { type: "json_schema", name: "capital", schemaJson: JSON.stringify(SCHEMA) },
});
const answer = JSON.parse(text);
console.log(answer.city, answer.inhabitants);

llm.close();
