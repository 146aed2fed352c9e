/**
 * The Node client of AbstractLLM: text from local and hosted language models over one gRPC service.
 *
 *     import { RemoteLLM } from "@abstractllm/client";
 *
 *     const llm = new RemoteLLM("127.0.0.1:50051");
 *     console.log(await llm.generate("What is the capital of France?", { temperature: 0 }));
 */

export type * from "./answers.js";
export { type ClearTarget, type CountTokensOptions, RemoteLLM, type RemoteLLMOptions, type Stubs } from "./client.js";
export type { ConnectionOptions, TlsOptions } from "./connection.js";
export * from "./enums.js";
export * from "./errors.js";
export type { GenerationParameters } from "./generation-parameters.js";
export type * from "./json.js";
export type * from "./messages.js";
export { errorFrom } from "./status.js";
