/** The generated code of the contract: messages, stubs and servers, for what the client itself does not offer. */

export * from "./gen/abstractllm_api/v1/config.js";
export * from "./gen/abstractllm_api/v1/errors.js";
export * from "./gen/abstractllm_api/v1/generation.js";
export * from "./gen/abstractllm_api/v1/models.js";
