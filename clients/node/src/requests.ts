/** The arguments of a call -> the contract's requests. */

import * as check from "./check.js";
import { enumCodecs } from "./enum-codecs.js";
import type * as pb from "./gen/abstractllm_api/v1/generation.js";
import type { Part } from "./messages.js";
import * as parameters from "./parameters.js";

/** The names of the options of a generation, without generation parameters and the options of every call. */
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
 * Encodes a generation. It checks types; the server checks ranges.
 *
 * @param llm The LLM's name; empty for the server's default.
 * @param prompt A string, or an array of messages.
 * @param options Generation parameters and `OPTIONS` by name; `undefined` counts as absent.
 * @throws {UnsupportedParameterError} For a name that is not known.
 * @throws {InvalidRequestError} For a value of the wrong type, or text with a lone surrogate.
 */
export function generateRequest(llm: string, prompt: unknown, options: Options): pb.GenerateRequest {
  const present = Object.entries(options).filter(([, value]) => value !== undefined);
  const parameterEntries = present.filter(([name]) => !(OPTIONS as readonly string[]).includes(name));
  const { responseFormat, toolChoice, providerOptions, requestId, labels, parametersPolicy } = options;
  return {
    ...encodeInput(llm, prompt, options),
    parameters: parameterEntries.length > 0 ? parameters.encode(Object.fromEntries(parameterEntries)) : undefined,
    responseFormat: responseFormat === undefined ? undefined : encodeFormat(responseFormat),
    toolChoice: toolChoice === undefined ? undefined : encodeToolChoice(toolChoice),
    providerOptions: providerOptions === undefined ? undefined : jsonObject(providerOptions, "provider_options"),
    requestId: requestId === undefined ? "" : check.text(requestId, "request_id"),
    labels: labels === undefined ? new Map() : encodeLabels(labels, "labels"),
    parametersPolicy:
      parametersPolicy === undefined ? 0 : enumCodecs.ParametersPolicy.encode(parametersPolicy, "parameters_policy"),
  };
}

/** Encodes a count of tokens; its arguments and errors are those of `generateRequest`. */
export function countTokensRequest(llm: string, prompt: unknown, options: Options): pb.CountTokensRequest {
  return {
    ...encodeInput(llm, prompt, options),
    model: options.model === undefined ? undefined : check.text(options.model, "model"),
  };
}

/** Takes an object that JSON can hold. */
export function jsonObject(value: unknown, field: string): { [key: string]: unknown } {
  return check.json(check.plainObject(value, field), field) as { [key: string]: unknown };
}

function encodeInput(llm: string, prompt: unknown, { systemPrompt, tools }: Options) {
  return {
    llm: check.text(llm, "llm"),
    input: encodePrompt(prompt),
    systemPrompt: systemPrompt === undefined ? undefined : check.text(systemPrompt, "system_prompt"),
    tools:
      tools === undefined
        ? []
        : check.array(tools, "tools").map((entry, index) => encodeTool(entry, `tools[${index}]`)),
  };
}

function encodePrompt(prompt: unknown): pb.GenerateRequest["input"] {
  if (typeof prompt === "string") return { $case: "prompt", value: check.text(prompt, "prompt") };
  if (!Array.isArray(prompt)) throw check.invalidField("prompt", "must be a string or an array of messages", prompt);
  const messages = prompt.map((entry, index) => encodeMessage(entry, `chat.messages[${index}]`));
  return { $case: "chat", value: { messages } };
}

function encodeMessage(value: unknown, path: string): pb.ChatMessage {
  const { role, parts, content } = check.record(value, path, ["role", "parts", "content"]);
  if ((parts === undefined) === (content === undefined)) {
    throw check.invalidField(path, "must have a role and either parts or content", value);
  }
  const pieces = content === undefined ? parts : [{ type: "text", text: check.text(content, `${path}.content`) }];
  return {
    role: enumCodecs.Role.encode(role, `${path}.role`),
    parts: check.array(pieces, `${path}.parts`).map((entry, index) => encodePart(entry, `${path}.parts[${index}]`)),
  };
}

function encodePart(value: unknown, path: string): pb.Part {
  const { type, providerState } = check.plainObject(value, path);
  const encode =
    typeof type === "string" && Object.hasOwn(PART_ENCODERS, type)
      ? PART_ENCODERS[type as keyof typeof PART_ENCODERS]
      : undefined;
  if (encode === undefined) {
    throw check.invalidField(path, `must have a type of ${Object.keys(PART_ENCODERS).join(", ")}`, value);
  }
  return {
    part: encode((...names) => check.record(value, path, ["type", "providerState", ...names]), path),
    providerState:
      providerState === undefined ? new Uint8Array() : check.bytes(providerState, `${path}.provider_state`),
  };
}

type PartEncoder = (fields: (...names: string[]) => Options, path: string) => pb.Part["part"];

const PART_ENCODERS = {
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
} satisfies Record<Part["type"], PartEncoder>;

function encodeFormat(value: unknown): pb.ResponseFormat {
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
  throw check.invalidField(path, "must have a type of json_object, json_schema, regex, grammar", value);
}

const TOOL_KEYS = ["name", "description", "parametersJsonSchema"];

function encodeTool(value: unknown, path: string): pb.Tool {
  const { name, description = "", parametersJsonSchema = "{}" } = check.record(value, path, TOOL_KEYS);
  return {
    name: check.text(name, `${path}.name`),
    description: check.text(description, `${path}.description`),
    parametersJsonSchema: check.text(parametersJsonSchema, `${path}.parameters_json_schema`),
  };
}

function encodeToolChoice(value: unknown): pb.ToolChoice {
  if (typeof value === "object") {
    const name = check.text(check.record(value, "tool_choice", ["name"]).name, "tool_choice.name");
    return { choice: { $case: "name", value: name } };
  }
  return { choice: { $case: "mode", value: enumCodecs.ToolChoiceMode.encode(value, "tool_choice.mode") } };
}

function encodeLabels(value: unknown, field: string): Map<string, string> {
  const entries = Object.entries(check.plainObject(value, field)).filter(([, entry]) => entry !== undefined);
  return new Map(entries.map(([key, entry]) => [check.text(key, field), check.text(entry, `${field}.${key}`)]));
}
