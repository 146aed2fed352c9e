// Shows errors that a program can act on: a class, a reason, the field, its limit.
//
//     node errors.mjs [HOST:PORT] [LLM]

import { AbstractLLMError, InvalidRequestError, RemoteLLM, UnknownLLMError } from "@abstractllm/client";

const [address = "127.0.0.1:50051", name] = process.argv.slice(2);
const llm = new RemoteLLM(address, { llm: name });
const nobody = new RemoteLLM(address, { llm: "nobody" });

try {
  await llm.generate("Hi", { temperature: 5 });
} catch (error) {
  if (!(error instanceof InvalidRequestError)) throw error;
  console.log(`${error.reason}: ${error.field} must be ${error.limit}, not ${error.requested}`);
}

try {
  await llm.generate("Hi", { timeout: 30 });
  await nobody.generate("Hi");
} catch (error) {
  if (error instanceof UnknownLLMError) {
    console.log(`${error.reason}: ${error.message}`);
  } else if (error instanceof AbstractLLMError) {
    // Any other failure.
    console.log(`${error.reason}, worth a retry: ${error.retryable}, in the server's log under ${error.requestId}`);
  } else {
    throw error;
  }
}

llm.close();
nobody.close();
