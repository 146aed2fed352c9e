/** A flat configuration <-> the contract's LlmConfig. */

import type { LlmConfig, VersionedConfig } from "./answers.js";
import * as check from "./check.js";
import { quantizations } from "./enum-codec.js";
import { AbstractLLMError, ConfigurationError } from "./errors.js";
import * as pb from "./gen/abstractllm_api/v1/config.js";
import type { Duration } from "./gen/google/protobuf/duration.js";
import * as parameters from "./parameters.js";
import { jsonObject } from "./requests.js";
import { seconds } from "./wire.js";

const UNITS = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 };
const WEEK = 604_800;

const SETTINGS: { [Name in keyof pb.LlmConfig]?: (value: unknown, field: string) => pb.LlmConfig[Name] } = {
  model: check.text,
  systemPrompt: check.text,
  timeout: duration,
  maxRetries: check.int32,
  keepAlive: duration,
  quantization: quantizations.encode.bind(quantizations),
  providerOptions: jsonObject,
};
const PARAMETERS: readonly string[] = parameters.NAMES.filter((name) => name !== "model");

/**
 * Encodes changes with a mask of exactly the keys that are given.
 *
 * @param llm The LLM's name; empty for the server's default.
 * @param changes New values by key; `null` clears a key, `undefined` leaves it as it is.
 * @param etag The etag that the change is based on; empty to change it regardless.
 * @param validateOnly Only check.
 * @throws {ConfigurationError} For a key that cannot be set over the wire, or a value of the wrong type.
 */
export function setConfigRequest(
  llm: string,
  changes: object,
  etag: string,
  validateOnly: boolean,
): pb.SetConfigRequest {
  try {
    const given = Object.entries(check.plainObject(changes, "config")).filter(([, value]) => value !== undefined);
    const settings = given.filter(([name]) => !PARAMETERS.includes(name));
    const sampling = given.filter(([name]) => PARAMETERS.includes(name));
    const setSampling = sampling.filter(([, value]) => value !== null);
    return {
      llm: check.text(llm, "llm"),
      config: pb.LlmConfig.create({
        ...Object.fromEntries(settings.map(([name, value]) => [name, setting(name, value)])),
        ...(setSampling.length > 0 && { parameters: parameters.encode(Object.fromEntries(setSampling)) }),
      }),
      updateMask: [
        ...settings.map(([name]) => parameters.wireName(name)),
        ...sampling.map(([name]) => `parameters.${parameters.wireName(name)}`),
      ],
      etag: check.text(etag, "etag"),
      validateOnly: check.bool(validateOnly, "validate_only"),
    };
  } catch (error) {
    if (!(error instanceof AbstractLLMError) || error instanceof ConfigurationError) throw error;
    const { field, limit, requested } = error;
    throw new ConfigurationError(error.message, { field, limit, requested });
  }
}

/** Decodes a configuration and its etag. */
export function decode(response: pb.GetConfigResponse | pb.SetConfigResponse): VersionedConfig {
  return { config: flat(response.config ?? pb.LlmConfig.create()), etag: response.etag };
}

/** A configuration without unset keys. */
function flat(config: pb.LlmConfig): LlmConfig {
  const { model, systemPrompt, timeout, maxRetries, keepAlive, quantization, providerOptions } = config;
  const sampling = config.parameters === undefined ? {} : parameters.decode(config.parameters);
  const found: LlmConfig = {
    ...sampling,
    model: model === "" ? undefined : model,
    systemPrompt,
    timeout: timeout && seconds(timeout),
    maxRetries,
    keepAlive: keepAlive && seconds(keepAlive),
    quantization: quantization === 0 ? undefined : quantizations.decode(quantization),
    providerOptions: providerOptions && Object.keys(providerOptions).length > 0 ? providerOptions : undefined,
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined));
}

function setting(name: string, value: unknown): unknown {
  const take = Object.hasOwn(SETTINGS, name) ? SETTINGS[name as keyof pb.LlmConfig] : undefined;
  if (take === undefined) {
    const known = [...Object.keys(SETTINGS), ...PARAMETERS].join(", ");
    throw new ConfigurationError(`${name} cannot be set over the network; these can: ${known}`, {
      field: name,
      limit: known,
    });
  }
  return value === null ? undefined : take(value, parameters.wireName(name));
}

/** Reads `90`, `"90s"`, `"10m"` or `"1h"`. */
function duration(value: unknown, field: string): Duration {
  let span = value;
  if (typeof value === "string") {
    const [, digits, unit = "s"] = /^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*$/.exec(value) ?? [];
    if (digits === undefined) {
      throw check.refuse(field, "must be a number of seconds, or a number with ms, s, m, h or d", value);
    }
    span = Number(digits) * UNITS[unit as keyof typeof UNITS];
  }
  const found = check.seconds(span, field);
  if (found > WEEK) throw check.refuse(field, `must be at most ${WEEK} seconds (a week)`, value, WEEK);
  const nanoseconds = Math.round(found * 1e9);
  return { seconds: BigInt(Math.floor(nanoseconds / 1e9)), nanos: nanoseconds % 1e9 };
}
