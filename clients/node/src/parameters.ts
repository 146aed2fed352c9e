/** Generation parameters by name <-> the contract's GenerationParameters. */

import { UnsupportedParameterError } from "./errors.js";
import { GenerationParameters as Message } from "./gen/abstractllm_api/v1/generation.js";
import { type GenerationParameters, PARAMETER_CODECS } from "./generation-parameters.js";
import type { ValueCodec } from "./value-codecs.js";

const CODECS: ReadonlyMap<string, ValueCodec<unknown>> = new Map(Object.entries(PARAMETER_CODECS));

/** The names of all generation parameters, in the contract's order. */
export const PARAMETER_NAMES: readonly string[] = [...CODECS.keys()];

/** Returns the contract's name of a field: `top_p` for `topP`. */
export function wireName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/**
 * Encodes parameters. It checks types; the server checks ranges.
 *
 * @throws {UnsupportedParameterError} For a name that is no generation parameter.
 * @throws {InvalidRequestError} For a value of the wrong type.
 */
export function encode(values: Readonly<Record<string, unknown>>): Message {
  const encoded = Object.entries(values).map(([name, value]) => {
    const codec = CODECS.get(name);
    if (codec === undefined) {
      throw new UnsupportedParameterError(`${name} is not a known parameter`, { field: `parameters.${name}` });
    }
    return [name, codec.encode(value, `parameters.${wireName(name)}`)];
  });
  return Message.create(Object.fromEntries(encoded));
}

/** Decodes the parameters that are set. */
export function decode(message: Message): GenerationParameters {
  const decoded = Object.entries(message).flatMap(([name, field]) => {
    const value = field === undefined ? undefined : CODECS.get(name)?.decode(field);
    return value === undefined ? [] : [[name, value]];
  });
  return Object.fromEntries(decoded);
}
