/** A flat configuration <-> the contract's LlmConfig. */

import type { LlmConfig, VersionedConfig } from "./answers.js";
import * as check from "./check.js";
import { enumCodecs } from "./enum-codecs.js";
import { AbstractLLMError, ConfigurationError } from "./errors.js";
import * as pb from "./gen/abstractllm_api/v1/config.js";
import type { Duration } from "./gen/google/protobuf/duration.js";
import * as parameters from "./parameters.js";
import { jsonObject } from "./requests.js";
import * as wire from "./wire.js";

/** Seconds in each unit. */
const UNITS = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 };
/** The longest span that the server takes: a week. */
const MAX_SPAN = 604_800;

/** The encoders of the keys that are no generation parameters; `model` is a key of its own. */
const SETTINGS: { [Name in keyof pb.LlmConfig]?: (value: unknown, field: string) => pb.LlmConfig[Name] } = {
  model: check.text,
  systemPrompt: check.text,
  timeout: encodeDuration,
  maxRetries: check.int32,
  keepAlive: encodeDuration,
  quantization: (value, field) => enumCodecs.Quantization.encode(value, field),
  providerOptions: jsonObject,
};
const PARAMETERS: readonly string[] = parameters.PARAMETER_NAMES.filter((name) => name !== "model");

/**
 * Encodes changes with a mask of exactly the keys that are given.
 *
 * @param llm The LLM's name; empty for the server's default.
 * @param changes New values by key; `null` clears a key, `undefined` leaves it as it is.
 * @param etag The etag that the change is based on; empty to change it regardless.
 * @param validateOnly True to check the change without making it.
 * @throws {ConfigurationError} For a key that cannot be set over the network, or a value of the wrong type.
 */
export function setConfigRequest(
  llm: string,
  changes: object,
  etag: string,
  validateOnly: boolean,
): pb.SetConfigRequest {
  try {
    const entries = Object.entries(check.plainObject(changes, "config")).filter(([, value]) => value !== undefined);
    const settings = entries.filter(([name]) => !PARAMETERS.includes(name));
    const parameterEntries = entries.filter(([name]) => PARAMETERS.includes(name));
    const newParameters = parameterEntries.filter(([, value]) => value !== null);
    return {
      llm: check.text(llm, "llm"),
      config: pb.LlmConfig.create({
        ...Object.fromEntries(settings.map(([name, value]) => [name, encodeSetting(name, value)])),
        ...(newParameters.length > 0 && { parameters: parameters.encode(Object.fromEntries(newParameters)) }),
      }),
      updateMask: [
        ...settings.map(([name]) => parameters.wireName(name)),
        ...parameterEntries.map(([name]) => `parameters.${parameters.wireName(name)}`),
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
  return { config: flatten(response.config ?? pb.LlmConfig.create()), etag: response.etag };
}

/** Decodes a configuration to one flat object without unset keys. */
function flatten(config: pb.LlmConfig): LlmConfig {
  const { model, systemPrompt, timeout, maxRetries, keepAlive, quantization, providerOptions } = config;
  const settings: LlmConfig = {
    ...(config.parameters && parameters.decode(config.parameters)),
    model: model === "" ? undefined : model,
    systemPrompt,
    timeout: timeout && wire.seconds(timeout),
    maxRetries,
    keepAlive: keepAlive && wire.seconds(keepAlive),
    quantization: quantization === 0 ? undefined : enumCodecs.Quantization.decode(quantization),
    providerOptions: providerOptions && Object.keys(providerOptions).length > 0 ? providerOptions : undefined,
  };
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
}

function encodeSetting(name: string, value: unknown): unknown {
  const encode = Object.hasOwn(SETTINGS, name) ? SETTINGS[name as keyof pb.LlmConfig] : undefined;
  if (encode === undefined) {
    const limit = [...Object.keys(SETTINGS), ...PARAMETERS].join(", ");
    throw new ConfigurationError(`${name} cannot be set over the network; these can: ${limit}`, { field: name, limit });
  }
  return value === null ? undefined : encode(value, parameters.wireName(name));
}

/** Encodes a span: seconds such as `90`, or a text such as `"90s"`, `"10m"` or `"1h"`. */
function encodeDuration(value: unknown, field: string): Duration {
  let span = value;
  if (typeof value === "string") {
    const [, digits, unit = "s"] = /^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*$/.exec(value) ?? [];
    if (digits === undefined) {
      throw check.invalidField(field, "must be a number of seconds, or a number with ms, s, m, h or d", value);
    }
    span = Number(digits) * UNITS[unit as keyof typeof UNITS];
  }
  const seconds = check.seconds(span, field);
  if (seconds > MAX_SPAN) {
    throw check.invalidField(field, `must be at most ${MAX_SPAN} seconds (a week)`, value, MAX_SPAN);
  }
  const nanoseconds = Math.round(seconds * 1e9);
  return { seconds: BigInt(Math.floor(nanoseconds / 1e9)), nanos: nanoseconds % 1e9 };
}
