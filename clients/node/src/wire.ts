/** The scalars of the wire -> JavaScript's. */

import { InternalError } from "./errors.js";
import type { Duration } from "./gen/google/protobuf/duration.js";
import type { Timestamp } from "./gen/google/protobuf/timestamp.js";

/**
 * A count, as the number it exactly is.
 *
 * @throws {InternalError} If it is beyond 2^53, which no number of tokens or bytes is.
 */
export function count(value: bigint, field: string): number {
  const found = Number(value);
  if (!Number.isSafeInteger(found)) throw new InternalError(`${field}: no number holds ${value}`, { field });
  return found;
}

/** As `count`; absent stays absent. */
export function optionalCount(value: bigint | undefined, field: string): number | undefined {
  return value === undefined ? undefined : count(value, field);
}

/** A span in seconds. */
export function seconds(span: Duration): number {
  return Number(span.seconds) + span.nanos / 1e9;
}

/** A span in seconds; absent stays absent. */
export function optionalSeconds(span: Duration | undefined): number | undefined {
  return span === undefined ? undefined : seconds(span);
}

/** A point in time; absent stays absent. */
export function date(time: Timestamp | undefined): Date | undefined {
  return time === undefined ? undefined : new Date(Number(time.seconds) * 1000 + Math.floor(time.nanos / 1e6));
}

/** Bytes of their own: those of a message are a view of all of it, and would keep it in memory. */
export function ownBytes(view: Uint8Array): Uint8Array {
  return new Uint8Array(view);
}
