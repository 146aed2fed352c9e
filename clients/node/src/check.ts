/** Checks of values that the codec would refuse without naming the field, or silently take for something else. */

import { inspect } from "node:util";
import { type ErrorFacts, InvalidRequestError, UnsupportedParameterError } from "./errors.js";
import type { JsonValue } from "./json.js";

/**
 * The deepest nesting of a JSON value: protobuf decoders take messages 100 deep, of which an object takes three.
 * A value that contains itself ends here, too.
 */
const MAX_JSON_DEPTH = 33;
/** The longest timeout of a call, in seconds: what is much longer gRPC cannot send, and fails without an error of ours. */
const MAX_TIMEOUT = 1e9;

/** Makes the error for a value that breaks a rule; it shows at most 80 characters of the value. */
export function invalidField(
  field: string,
  rule: string,
  value: unknown,
  limit?: ErrorFacts["limit"],
): InvalidRequestError {
  const whole = inspect(value, { breakLength: Number.POSITIVE_INFINITY, depth: 1, maxStringLength: 100 });
  const shown = whole.length <= 80 ? whole : `${whole.slice(0, 77)}...`;
  return new InvalidRequestError(`${field}: ${rule}, got ${shown}`, { field, limit, requested: shown });
}

/**
 * Takes a string that is whole Unicode text.
 *
 * @throws {InvalidRequestError} If it is no string, or holds a lone surrogate, which would be sent as U+FFFD.
 */
export function text(value: unknown, field: string): string {
  if (typeof value !== "string") throw invalidField(field, "must be a string", value);
  if (!value.isWellFormed()) {
    const index = /\p{Surrogate}/u.exec(value)?.index;
    throw new InvalidRequestError(`${field} holds a lone surrogate at character ${index}, which is not valid Unicode`, {
      field,
    });
  }
  return value;
}

/**
 * Takes a whole number that fits a signed integer of 32 bits.
 *
 * @throws {InvalidRequestError} If it is no such number.
 */
export function int32(value: unknown, field: string): number {
  if (typeof value !== "number" || !Number.isInteger(value)) throw invalidField(field, "must be a whole number", value);
  if (value < -(2 ** 31) || value >= 2 ** 31) {
    const limit = `from ${-(2 ** 31)} to ${2 ** 31 - 1}`;
    throw invalidField(field, `must be ${limit}`, value, limit);
  }
  return value;
}

/**
 * Takes a whole number that fits a signed integer of 64 bits.
 *
 * @throws {InvalidRequestError} If it is no such number, or a `number` beyond 2^53, which may have been rounded.
 */
export function int64(value: unknown, field: string): bigint {
  if (typeof value === "number" && Number.isInteger(value)) {
    if (!Number.isSafeInteger(value)) throw invalidField(field, "must be a bigint where it is beyond 2^53", value);
    return BigInt(value);
  }
  if (typeof value !== "bigint") throw invalidField(field, "must be a whole number", value);
  if (BigInt.asIntN(64, value) !== value) {
    const limit = `from ${-(2n ** 63n)} to ${2n ** 63n - 1n}`;
    throw invalidField(field, `must be ${limit}`, value, limit);
  }
  return value;
}

/**
 * Takes a number.
 *
 * @throws {InvalidRequestError} If it is no number, or not finite.
 */
export function number(value: unknown, field: string): number {
  if (typeof value !== "number") throw invalidField(field, "must be a number", value);
  if (!Number.isFinite(value)) throw invalidField(field, "must be a finite number", value, "finite");
  return value;
}

/**
 * Takes a span in seconds.
 *
 * @throws {InvalidRequestError} If it is no finite number above 0.
 */
export function seconds(value: unknown, field: string): number {
  const span = number(value, field);
  if (span <= 0) throw invalidField(field, "must be greater than 0 seconds", value, "greater than 0");
  return span;
}

/** Takes true or false. */
export function bool(value: unknown, field: string): boolean {
  if (typeof value !== "boolean") throw invalidField(field, "must be true or false", value);
  return value;
}

/** Takes bytes. */
export function bytes(value: unknown, field: string): Uint8Array {
  if (!(value instanceof Uint8Array)) throw invalidField(field, "must be a Uint8Array", value);
  return value;
}

/** Takes an array. */
export function array(value: unknown, field: string): readonly unknown[] {
  if (!Array.isArray(value)) throw invalidField(field, "must be an array", value);
  return value;
}

/** Takes an object that is no array and no instance of a class. */
export function plainObject(value: unknown, field: string): Readonly<Record<string, unknown>> {
  const prototype: unknown = typeof value === "object" && value !== null ? Object.getPrototypeOf(value) : undefined;
  // The prototype of an object of another realm (a vm context) is not this realm's, but has none itself.
  if (prototype === null || (typeof prototype === "object" && Object.getPrototypeOf(prototype) === null)) {
    return value as Readonly<Record<string, unknown>>;
  }
  throw invalidField(field, "must be a plain object", value);
}

/**
 * Takes a plain object with keys of a list only, as a misspelt one would otherwise be ignored.
 *
 * @throws {InvalidRequestError} If it is no plain object, or naming the first key that is not in the list.
 */
export function record(value: unknown, field: string, keys: readonly string[]): Readonly<Record<string, unknown>> {
  const object = plainObject(value, field);
  for (const [name, entry] of Object.entries(object)) {
    if (entry !== undefined && !keys.includes(name)) {
      const limit = keys.join(", ");
      throw new InvalidRequestError(`${field}: ${name} is not a known key; these are: ${limit}`, { field, limit });
    }
  }
  return object;
}

/**
 * Refuses options whose names are not in a list, as a misspelt one would otherwise be ignored.
 *
 * @throws {UnsupportedParameterError} Naming the first one.
 */
export function optionNames(options: unknown, names: readonly string[]): void {
  for (const [name, value] of Object.entries(plainObject(options, "options"))) {
    if (value !== undefined && !names.includes(name)) {
      const limit = names.join(", ");
      throw new UnsupportedParameterError(`${name} is not a known option; these are: ${limit}`, { field: name, limit });
    }
  }
}

/**
 * Takes a value that a protobuf Struct can hold without loss, and copies it; entries that are `undefined` are left out.
 *
 * @throws {InvalidRequestError} Naming the entry that JSON cannot hold.
 */
export function json(value: unknown, field: string, depth = 0): JsonValue {
  if (depth > MAX_JSON_DEPTH) {
    const limit = MAX_JSON_DEPTH;
    throw new InvalidRequestError(`${field}: nested deeper than ${limit}`, { field, limit });
  }
  if (value === null || typeof value === "boolean") return value;
  if (typeof value === "number") return number(value, field);
  if (typeof value === "string") return text(value, field);
  if (Array.isArray(value)) return value.map((entry, index) => json(entry, `${field}[${index}]`, depth + 1));
  if (typeof value !== "object")
    throw invalidField(field, "must be null, a boolean, a number, a string, an array or an object", value);
  const entries = Object.entries(plainObject(value, field)).filter(([, entry]) => entry !== undefined);
  return Object.fromEntries(
    entries.map(([key, entry]) => [text(key, field), json(entry, `${field}.${key}`, depth + 1)]),
  );
}

/** Takes the timeout of a call, in seconds; absent stays absent. */
export function callTimeout(value: unknown): number | undefined {
  if (value === undefined) return undefined;
  const span = seconds(value, "timeout");
  if (span > MAX_TIMEOUT) throw invalidField("timeout", `must be at most ${MAX_TIMEOUT} seconds`, value, MAX_TIMEOUT);
  return span;
}

/** Takes the signal that aborts a call; absent stays absent. */
export function signal(value: unknown): AbortSignal | undefined {
  if (value !== undefined && !(value instanceof AbortSignal)) {
    throw invalidField("signal", "must be an AbortSignal", value);
  }
  return value;
}
