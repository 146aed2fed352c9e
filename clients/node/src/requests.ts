/** The arguments of a call -> the contract's requests. */

import * as check from "./check.js";
import { parametersPolicies, roles, toolChoiceModes } from "./enum-codec.js";
import type * as pb from "./gen/abstractllm_api/v1/generation.js";
import type { Part } from "./messages.js";
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
  const { role, parts, content } = check.record(value, path, ["role", "parts", "content"]);
  if ((parts === undefined) === (content === undefined)) {
    throw check.refuse(path, "must have a role and either parts or content", value);
  }
  const pieces = content === undefined ? parts : [{ type: "text", text: check.text(content, `${path}.content`) }];
  return {
    role: roles.encode(role, `${path}.role`),
    parts: check.array(pieces, `${path}.parts`).map((entry, at) => part(entry, `${path}.parts[${at}]`)),
  };
}

function part(value: unknown, path: string): pb.Part {
  const { type, providerState } = check.plainObject(value, path);
  const encode = typeof type === "string" && Object.hasOwn(PARTS, type) ? PARTS[type as keyof typeof PARTS] : undefined;
  if (encode === undefined) {
    throw check.refuse(path, `must have a type of ${Object.keys(PARTS).join(", ")}`, value);
  }
  return {
    part: encode((...names) => check.record(value, path, ["type", "providerState", ...names]), path),
    providerState:
      providerState === undefined ? new Uint8Array() : check.bytes(providerState, `${path}.provider_state`),
  };
}

type EncodePart = (fields: (...names: string[]) => Options, path: string) => pb.Part["part"];

const PARTS = {
  text: (fields, path) => ({ $case: "text", value: check.text(fields("text").text, `${path}.text`) }),
  image: (fields, path) => {
    const { data, mimeType } = fields("data", "mimeType");
    const value = {
      data: check.bytes(data, `${path}.image.data`),
      mimeType: check.text(mimeType, `${path}.image.mime_type`),
    };
    return { $case: "image", value };
  },
  tool_call: (fields, path) => {
    const { id, name, argumentsJson } = fields("id", "name", "argumentsJson");
    const value = {
      id: check.text(id, `${path}.tool_call.id`),
      name: check.text(name, `${path}.tool_call.name`),
      argumentsJson: check.text(argumentsJson, `${path}.tool_call.arguments_json`),
    };
    return { $case: "toolCall", value };
  },
  tool_result: (fields, path) => {
    const { toolCallId, content, isError = false } = fields("toolCallId", "content", "isError");
    const value = {
      toolCallId: check.text(toolCallId, `${path}.tool_result.tool_call_id`),
      content: check.text(content, `${path}.tool_result.content`),
      isError: check.bool(isError, `${path}.tool_result.is_error`),
    };
    return { $case: "toolResult", value };
  },
  reasoning: (fields, path) => {
    return { $case: "reasoning", value: { text: check.text(fields("text").text, `${path}.reasoning.text`) } };
  },
} satisfies Record<Part["type"], EncodePart>;

function format(value: unknown): pb.ResponseFormat {
  const path = "response_format";
  const fields = (...names: string[]) => check.record(value, path, ["type", ...names]);
  switch (check.plainObject(value, path).type) {
    case "json_object":
      fields();
      return { format: { $case: "jsonObject", value: {} } };
    case "json_schema": {
      const { schemaJson, name = "", strict } = fields("schemaJson", "name", "strict");
      const schema = {
        name: check.text(name, `${path}.json_schema.name`),
        schemaJson: check.text(schemaJson, `${path}.json_schema.schema_json`),
        strict: strict === undefined ? undefined : check.bool(strict, `${path}.json_schema.strict`),
      };
      return { format: { $case: "jsonSchema", value: schema } };
    }
    case "regex":
      return { format: { $case: "regex", value: check.text(fields("regex").regex, `${path}.regex`) } };
    case "grammar":
      return { format: { $case: "grammar", value: check.text(fields("grammar").grammar, `${path}.grammar`) } };
  }
  throw check.refuse(path, "must have a type of json_object, json_schema, regex, grammar", value);
}

const TOOL = ["name", "description", "parametersJsonSchema"];

function tool(value: unknown, path: string): pb.Tool {
  const { name, description = "", parametersJsonSchema = "{}" } = check.record(value, path, TOOL);
  return {
    name: check.text(name, `${path}.name`),
    description: check.text(description, `${path}.description`),
    parametersJsonSchema: check.text(parametersJsonSchema, `${path}.parameters_json_schema`),
  };
}

function choice(value: unknown): pb.ToolChoice {
  if (typeof value === "object") {
    const name = check.text(check.record(value, "tool_choice", ["name"]).name, "tool_choice.name");
    return { choice: { $case: "name", value: name } };
  }
  return { choice: { $case: "mode", value: toolChoiceModes.encode(value, "tool_choice.mode") } };
}

function texts(value: unknown, field: string): Map<string, string> {
  const entries = Object.entries(check.plainObject(value, field)).filter(([, entry]) => entry !== undefined);
  return new Map(entries.map(([key, entry]) => [check.text(key, field), check.text(entry, `${field}.${key}`)]));
}
