/** Codecs of the kinds of value that a generation parameter can have. */

import * as check from "./check.js";

/** A codec between the value that a caller writes and the field of the contract's message. */
export interface ValueCodec<Encoded> {
  /**
   * Encodes a value; it checks the type, the server checks the range.
   *
   * @throws {InvalidRequestError} For a value of the wrong type.
   */
  encode(value: unknown, field: string): Encoded;
  /** Decodes a field; `undefined` where the value means that the field is not set. */
  decode(value: Encoded): unknown;
}

/** Text. */
export const text: ValueCodec<string> = { encode: check.text, decode: unchanged };

/** A number. */
export const double: ValueCodec<number> = { encode: check.number, decode: unchanged };

/** A whole number of 32 bits. */
export const int32: ValueCodec<number> = { encode: check.int32, decode: unchanged };

/** A whole number of 64 bits: a number where it is exact, else a bigint. */
export const int64: ValueCodec<bigint> = {
  encode: check.int64,
  decode: (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : value),
};

/** A list of texts, or a single one. */
export const texts: ValueCodec<string[]> = {
  encode(value, field) {
    const entries = typeof value === "string" ? [value] : check.array(value, field);
    return entries.map((entry, index) => check.text(entry, `${field}[${index}]`));
  },
  decode: (value) => (value.length > 0 ? value : undefined),
};

/** Numbers by token id, in a Map or an object. */
export const numberByToken: ValueCodec<Map<number, number>> = {
  encode(value, field) {
    const entries = value instanceof Map ? [...value] : Object.entries(check.plainObject(value, field)).map(tokenEntry);
    return new Map(
      entries.map(([token, number]) => [check.int32(token, field), check.number(number, `${field}.${String(token)}`)]),
    );
  },
  decode: (value) => (value.size > 0 ? Object.fromEntries(value) : undefined),
};

function unchanged<Value>(value: Value): Value {
  return value;
}

/** Reads the key of an object as a token id: digits, and nothing else, so neither `"1e3"` nor `""`. */
function tokenEntry([key, value]: [string, unknown]): [unknown, unknown] {
  return [/^\d+$/.test(key) ? Number(key) : key, value];
}
