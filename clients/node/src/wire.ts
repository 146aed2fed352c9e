/** Scalars of the contract -> JavaScript's. */

import { InternalError } from "./errors.js";
import type { Duration } from "./gen/google/protobuf/duration.js";
import type { Timestamp } from "./gen/google/protobuf/timestamp.js";

/**
 * Converts a count of tokens or bytes to a number.
 *
 * @throws {InternalError} If it is beyond 2^53, so that no number is exactly it.
 */
export function count(value: bigint, field: string): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw new InternalError(`${field}: ${value} is too large for a number`, { field });
  return number;
}

/** Converts a count; absent stays absent. */
export function optionalCount(value: bigint | undefined, field: string): number | undefined {
  return value === undefined ? undefined : count(value, field);
}

/** Converts a span to seconds. */
export function seconds(span: Duration): number {
  return Number(span.seconds) + span.nanos / 1e9;
}

/** Converts a span to seconds; absent stays absent. */
export function optionalSeconds(span: Duration | undefined): number | undefined {
  return span === undefined ? undefined : seconds(span);
}

/** Converts a point in time; absent stays absent. */
export function date(time: Timestamp | undefined): Date | undefined {
  return time === undefined ? undefined : new Date(Number(time.seconds) * 1000 + Math.floor(time.nanos / 1e6));
}

/** Copies the bytes of a message: they are a view of the whole message, and would keep all of it in memory. */
export function copyOf(view: Uint8Array): Uint8Array {
  return new Uint8Array(view);
}
