/** Generation parameters by name <-> the contract's GenerationParameters. */

import * as check from "./check.js";
import { reasoningEfforts } from "./enum-codec.js";
import { UnsupportedParameterError } from "./errors.js";
import { GenerationParameters as Message } from "./gen/abstractllm_api/v1/generation.js";
import type { GenerationParameters } from "./messages.js";

type Taken = { [Name in keyof Message]-?: (value: unknown, field: string) => NonNullable<Message[Name]> };

const TAKE: Taken = {
  model: check.text,
  temperature: check.number,
  topP: check.number,
  topK: check.int32,
  minP: check.number,
  maxTokens: check.int32,
  seed: check.int64,
  presencePenalty: check.number,
  frequencyPenalty: check.number,
  repetitionPenalty: check.number,
  stop: (value, field) => {
    const texts = typeof value === "string" ? [value] : check.array(value, field);
    return texts.map((entry, at) => check.text(entry, `${field}[${at}]`));
  },
  logitBias: (value, field) => {
    const entries = value instanceof Map ? [...value] : Object.entries(check.plainObject(value, field)).map(byNumber);
    return new Map(entries.map(([id, bias]) => [check.int32(id, field), check.number(bias, `${field}.${String(id)}`)]));
  },
  topLogprobs: check.int32,
  reasoningEffort: reasoningEfforts.encode.bind(reasoningEfforts),
};

/** The names of all generation parameters, in the contract's order. */
export const NAMES = Object.keys(TAKE) as readonly (keyof Message)[];

/** The contract's name of a field: `top_p` for `topP`. */
export function wireName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/**
 * Encodes parameters; whether a value is in range is the server's to say.
 *
 * @throws {UnsupportedParameterError} For a name that is no generation parameter.
 * @throws {InvalidRequestError} For a value of the wrong type.
 */
export function encode(values: Readonly<Record<string, unknown>>): Message {
  const message = Message.create();
  for (const [name, value] of Object.entries(values)) {
    const field = `parameters.${wireName(name)}`;
    if (!Object.hasOwn(TAKE, name)) {
      throw new UnsupportedParameterError(`${name} is not a known parameter`, { field: `parameters.${name}` });
    }
    Object.assign(message, { [name]: TAKE[name as keyof Message](value, field) });
  }
  return message;
}

/** Decodes the parameters that are set. */
export function decode(message: Message): GenerationParameters {
  const { stop, logitBias, reasoningEffort, seed, ...scalars } = message;
  return {
    ...Object.fromEntries(Object.entries(scalars).filter(([, value]) => value !== undefined)),
    ...(seed !== undefined && { seed: Number.isSafeInteger(Number(seed)) ? Number(seed) : seed }),
    ...(stop.length > 0 && { stop }),
    ...(logitBias.size > 0 && { logitBias: Object.fromEntries(logitBias) }),
    ...(reasoningEffort !== undefined && { reasoningEffort: reasoningEfforts.decode(reasoningEffort) }),
  };
}

/** A token id as the key of an object is a text of digits, and nothing else: not `"1e3"`, not `""`. */
function byNumber([key, value]: [string, unknown]): [unknown, unknown] {
  return [/^\d+$/.test(key) ? Number(key) : key, value];
}
