/** The arguments of a call -> the contract's requests. */

import * as check from "./check.js";
import { parametersPolicies, roles, toolChoiceModes } from "./enum-codec.js";
import type * as pb from "./gen/abstractllm_api/v1/generation.js";
import * as parameters from "./parameters.js";

/** What a generation takes beside generation parameters and what every call takes. */
export const OPTIONS = [
  "systemPrompt",
  "responseFormat",
  "tools",
  "toolChoice",
  "providerOptions",
  "requestId",
  "labels",
  "parametersPolicy",
] as const;

type Options = Readonly<Record<string, unknown>>;

/**
 * Encodes a generation; whether values are in range is the server's to say.
 *
 * @param llm The LLM's name; empty for the server's default.
 * @param prompt A string, or an array of messages.
 * @param options Generation parameters and `OPTIONS` by name; `undefined` counts as absent.
 * @throws {UnsupportedParameterError} For a name that is not known.
 * @throws {InvalidRequestError} For a value of the wrong type, or text that is no Unicode.
 */
export function generateRequest(llm: string, prompt: unknown, options: Options): pb.GenerateRequest {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const sampling = given.filter(([name]) => !(OPTIONS as readonly string[]).includes(name));
  const { responseFormat, toolChoice, providerOptions, requestId, labels, parametersPolicy } = options;
  return {
    ...countTokensInput(llm, prompt, options),
    parameters: sampling.length > 0 ? parameters.encode(Object.fromEntries(sampling)) : undefined,
    responseFormat: responseFormat === undefined ? undefined : format(responseFormat),
    toolChoice: toolChoice === undefined ? undefined : choice(toolChoice),
    providerOptions: providerOptions === undefined ? undefined : jsonObject(providerOptions, "provider_options"),
    requestId: requestId === undefined ? "" : check.text(requestId, "request_id"),
    labels: labels === undefined ? new Map() : texts(labels, "labels"),
    parametersPolicy:
      parametersPolicy === undefined ? 0 : parametersPolicies.encode(parametersPolicy, "parameters_policy"),
  };
}

/** Encodes a count of tokens; arguments and errors as `generateRequest`. */
export function countTokensRequest(llm: string, prompt: unknown, options: Options): pb.CountTokensRequest {
  return {
    ...countTokensInput(llm, prompt, options),
    model: options.model === undefined ? undefined : check.text(options.model, "model"),
  };
}

/** Takes an object that JSON can hold. */
export function jsonObject(value: unknown, field: string): { [key: string]: unknown } {
  return check.json(check.plainObject(value, field), field) as { [key: string]: unknown };
}

function countTokensInput(llm: string, prompt: unknown, { systemPrompt, tools }: Options) {
  return {
    llm: check.text(llm, "llm"),
    input: input(prompt),
    systemPrompt: systemPrompt === undefined ? undefined : check.text(systemPrompt, "system_prompt"),
    tools: tools === undefined ? [] : check.array(tools, "tools").map((entry, at) => tool(entry, `tools[${at}]`)),
  };
}

function input(prompt: unknown): pb.GenerateRequest["input"] {
  if (typeof prompt === "string") return { $case: "prompt", value: check.text(prompt, "prompt") };
  if (!Array.isArray(prompt)) throw check.refuse("prompt", "must be a string or an array of messages", prompt);
  return { $case: "chat", value: { messages: prompt.map((entry, at) => message(entry, `chat.messages[${at}]`)) } };
}

function message(value: unknown, path: string): pb.ChatMessage {
  const { role, parts, content, ...rest } = check.plainObject(value, path);
  if (Object.keys(rest).length > 0 || (parts === undefined) === (content === undefined)) {
    throw check.refuse(path, "must have a role and either parts or content", value);
  }
  const pieces = content === undefined ? parts : [{ type: "text", text: check.text(content, `${path}.content`) }];
  return {
    role: roles.encode(role, `${path}.role`),
    parts: check.array(pieces, `${path}.parts`).map((entry, at) => part(entry, `${path}.parts[${at}]`)),
  };
}

function part(value: unknown, path: string): pb.Part {
  const { type, providerState, ...fields } = check.plainObject(value, path);
  const encode = typeof type === "string" && Object.hasOwn(PARTS, type) ? PARTS[type as keyof typeof PARTS] : undefined;
  if (encode === undefined) {
    throw check.refuse(path, `must have a type of ${Object.keys(PARTS).join(", ")}`, value);
  }
  return {
    part: encode(fields, path),
    providerState:
      providerState === undefined ? new Uint8Array() : check.bytes(providerState, `${path}.provider_state`),
  };
}

const PARTS = {
  text: (fields: Options, path: string): pb.Part["part"] => {
    return { $case: "text", value: check.text(fields.text, `${path}.text`) };
  },
  image: ({ data, mimeType }: Options, path: string): pb.Part["part"] => {
    const value = {
      data: check.bytes(data, `${path}.image.data`),
      mimeType: check.text(mimeType, `${path}.image.mime_type`),
    };
    return { $case: "image", value };
  },
  tool_call: ({ id, name, argumentsJson }: Options, path: string): pb.Part["part"] => {
    const value = {
      id: check.text(id, `${path}.tool_call.id`),
      name: check.text(name, `${path}.tool_call.name`),
      argumentsJson: check.text(argumentsJson, `${path}.tool_call.arguments_json`),
    };
    return { $case: "toolCall", value };
  },
  tool_result: ({ toolCallId, content, isError }: Options, path: string): pb.Part["part"] => {
    const value = {
      toolCallId: check.text(toolCallId, `${path}.tool_result.tool_call_id`),
      content: check.text(content, `${path}.tool_result.content`),
      isError: isError === undefined ? false : check.bool(isError, `${path}.tool_result.is_error`),
    };
    return { $case: "toolResult", value };
  },
  reasoning: (fields: Options, path: string): pb.Part["part"] => {
    return { $case: "reasoning", value: { text: check.text(fields.text, `${path}.reasoning.text`) } };
  },
};

function format(value: unknown): pb.ResponseFormat {
  const { type, schemaJson, name, strict, regex, grammar } = check.plainObject(value, "response_format");
  const path = "response_format.json_schema";
  switch (type) {
    case "json_object":
      return { format: { $case: "jsonObject", value: {} } };
    case "json_schema": {
      const schema = {
        name: name === undefined ? "" : check.text(name, `${path}.name`),
        schemaJson: check.text(schemaJson, `${path}.schema_json`),
        strict: strict === undefined ? undefined : check.bool(strict, `${path}.strict`),
      };
      return { format: { $case: "jsonSchema", value: schema } };
    }
    case "regex":
      return { format: { $case: "regex", value: check.text(regex, "response_format.regex") } };
    case "grammar":
      return { format: { $case: "grammar", value: check.text(grammar, "response_format.grammar") } };
  }
  throw check.refuse("response_format", "must have a type of json_object, json_schema, regex, grammar", value);
}

function tool(value: unknown, path: string): pb.Tool {
  const { name, description = "", parametersJsonSchema = "{}" } = check.plainObject(value, path);
  return {
    name: check.text(name, `${path}.name`),
    description: check.text(description, `${path}.description`),
    parametersJsonSchema: check.text(parametersJsonSchema, `${path}.parameters_json_schema`),
  };
}

function choice(value: unknown): pb.ToolChoice {
  if (typeof value === "object") {
    const name = check.text(check.plainObject(value, "tool_choice").name, "tool_choice.name");
    return { choice: { $case: "name", value: name } };
  }
  return { choice: { $case: "mode", value: toolChoiceModes.encode(value, "tool_choice.mode") } };
}

function texts(value: unknown, field: string): Map<string, string> {
  const entries = Object.entries(check.plainObject(value, field)).filter(([, entry]) => entry !== undefined);
  return new Map(entries.map(([key, entry]) => [check.text(key, field), check.text(entry, `${field}.${key}`)]));
}
