/** The client: one LLM of a server. */

import type { Channel } from "@grpc/grpc-js";
import type {
  CachedModel,
  Capabilities,
  ClearedModels,
  Completion,
  Event,
  LlmConfigChanges,
  LlmInfo,
  LoadProgress,
  PullProgress,
  UnloadProgress,
  VersionedConfig,
} from "./answers.js";
import { Calls } from "./calls.js";
import * as check from "./check.js";
import * as config from "./config.js";
import { type ConnectionOptions, connect } from "./connection.js";
import * as decode from "./decode.js";
import { InvalidRequestError } from "./errors.js";
import { EventReader, TextReader } from "./events.js";
import { ConfigServiceClient, ConfigServiceService as configService } from "./gen/abstractllm_api/v1/config.js";
import {
  type GenerateRequest,
  GenerationServiceClient,
  GenerationServiceService as generationService,
} from "./gen/abstractllm_api/v1/generation.js";
import {
  ModelServiceClient,
  ModelServiceService as modelService,
  Capabilities as pbCapabilities,
} from "./gen/abstractllm_api/v1/models.js";
import type { CallOptions, GenerateOptions, Prompt, Tool } from "./messages.js";
import * as requests from "./requests.js";
import { count } from "./wire.js";

const CALL_OPTIONS = ["signal", "timeout", "metadata"] as const;
const CLIENT_OPTIONS = [
  "llm",
  "defaults",
  "token",
  "tls",
  "metadata",
  "loadBalancing",
  "channelOptions",
  "interceptors",
] as const;
/** The number of cached models in one page; the server's largest. */
const PAGE_SIZE = 1000;

/** The options of a client. */
export interface RemoteLLMOptions extends ConnectionOptions {
  /** The name of an LLM of the server's configuration; empty for its default. */
  llm?: string | undefined;
  /** Defaults for the options of every generation; the timeout also bounds all other calls but progress streams. */
  defaults?: Omit<GenerateOptions, "signal" | "metadata"> | undefined;
}

/** The options of a count of tokens. */
export interface CountTokensOptions extends CallOptions {
  systemPrompt?: string | undefined;
  tools?: readonly Tool[] | undefined;
  /** One of the models that the LLM's configuration lists; its default one if absent. */
  model?: string | undefined;
}

/** The models to delete: one, or all of them. */
export type ClearTarget = { model: string; all?: undefined } | { all: true; model?: undefined };

/** The generated stubs, for what the client's own methods do not offer. */
export interface Stubs {
  generation: GenerationServiceClient;
  models: ModelServiceClient;
  config: ConfigServiceClient;
}

/**
 * One LLM of a server.
 *
 * Every method may fail with a subclass of `AbstractLLMError`. Methods that return an iterator call the server with its
 * first `next()`; leaving it, by a `break` for one, ends the call at once.
 */
export class RemoteLLM {
  /** The server's address. */
  readonly address: string;
  /** The LLM's name; empty for the server's default. */
  readonly llm: string;
  /** The gRPC channel that all calls go through. */
  readonly channel: Channel;
  /** The generated stubs on this client's channel, with its token and interceptors. */
  readonly stubs: Stubs;
  readonly #calls: Calls;
  readonly #defaults: GenerateOptions;

  /**
   * Makes a client; it connects with the first call.
   *
   * @param address `host:port`, `unix:/path/of/a/socket`, or `dns:///name:port` to use all servers of a name in turn.
   * @param options The LLM, defaults, credentials.
   * @throws {ConfigurationError} For a malformed address, token or certificate.
   * @throws {UnsupportedParameterError} For an option or a default that is not known.
   * @throws {InvalidRequestError} For a default of the wrong type.
   */
  constructor(address: string, options: RemoteLLMOptions = {}) {
    check.optionNames(options, CLIENT_OPTIONS);
    this.address = address;
    this.llm = check.text(options.llm ?? "", "llm");
    this.#defaults = withoutUndefined(options.defaults ?? {}, "defaults");
    const { timeout, ...defaults } = this.#defaults;
    check.callTimeout(timeout);
    requests.generateRequest(this.llm, "checks the defaults", defaults);
    const connection = connect(address, options);
    const { channel, credentials, interceptors } = connection;
    const shared = { channelOverride: channel, interceptors };
    this.channel = channel;
    this.stubs = {
      generation: new GenerationServiceClient(address, credentials, shared),
      models: new ModelServiceClient(address, credentials, shared),
      config: new ConfigServiceClient(address, credentials, shared),
    };
    this.#calls = new Calls(connection);
  }

  // Generation.

  /** Generates an answer, and returns its text. */
  async generate(prompt: Prompt, options: GenerateOptions = {}): Promise<string> {
    return (await this.complete(prompt, options)).text;
  }

  /** Generates an answer, and returns it whole: text, message, finish reason, usage, timing. */
  async complete(prompt: Prompt, options: GenerateOptions = {}): Promise<Completion> {
    const { request, call } = this.#generateRequest(prompt, options);
    return decode.completion(await this.#calls.unary(generationService.generate, request, call));
  }

  /** Generates an answer as events, `started` first and `finished` last. Leaving the iterator ends the generation. */
  stream(prompt: Prompt, options: GenerateOptions = {}): AsyncIterableIterator<Event> {
    const { request, call } = this.#generateRequest(prompt, options);
    return this.#calls.stream(generationService.streamGenerate, request, call, new EventReader());
  }

  /** Generates an answer as pieces of text. Leaving the iterator ends the generation. */
  streamText(prompt: Prompt, options: GenerateOptions = {}): AsyncIterableIterator<string> {
    const { request, call } = this.#generateRequest(prompt, options);
    return this.#calls.stream(generationService.streamGenerate, request, call, new TextReader());
  }

  // Tokens, capabilities and LLMs.

  /**
   * Counts the tokens that a prompt takes, special tokens and chat template included.
   *
   * @throws {UnsupportedFeatureError} If the LLM's provider cannot count.
   */
  async countTokens(prompt: Prompt, options: CountTokensOptions = {}): Promise<number> {
    const { systemPrompt, tools, model } = this.#defaults;
    const allOptions = { systemPrompt, tools, model, ...this.#bounded(options, ["systemPrompt", "tools", "model"]) };
    const request = requests.countTokensRequest(this.llm, prompt, allOptions);
    const { inputTokens } = await this.#calls.unary(generationService.countTokens, request, allOptions);
    return count(inputTokens, "input_tokens");
  }

  /**
   * Returns the capabilities of the LLM.
   *
   * @param options `model`: one of the models that the LLM's configuration lists; its default one if absent.
   */
  async getCapabilities(options: CallOptions & { model?: string | undefined } = {}): Promise<Capabilities> {
    const { model = this.#defaults.model, ...call } = this.#bounded(options, ["model"]);
    const request = { llm: this.llm, model: optionalText(model, "model") };
    const { capabilities } = await this.#calls.unary(modelService.getCapabilities, request, call);
    return decode.capabilities(capabilities ?? pbCapabilities.create());
  }

  /** Lists all LLMs of the server, and their states. */
  async listLlms(options: CallOptions = {}): Promise<LlmInfo[]> {
    const response = await this.#calls.unary(modelService.listLlms, {}, this.#bounded(options, []));
    return response.llms.map(decode.llmInfo);
  }

  // Configuration of the server.

  /** Reads the LLM's configuration on the server, and the etag to change it with. Needs the `admin` role. */
  async getConfig(options: CallOptions = {}): Promise<VersionedConfig> {
    const call = this.#bounded(options, []);
    return config.decode(await this.#calls.unary(configService.getConfig, { llm: this.llm }, call));
  }

  /**
   * Changes the LLM's configuration on the server, for every caller of it. Needs the `admin` role.
   *
   * This client's own `defaults` stay as they are.
   *
   * @param changes New values by key; exactly the keys that are given change, and `null` clears one.
   * @param options `etag`: fail if the configuration has changed since this etag was read. `validateOnly`: check the
   *   change without making it, and return the configuration that it would give.
   * @returns The configuration after the change.
   * @throws {ConfigurationError} If a key cannot be set over the network or its value is malformed.
   * @throws {InvalidRequestError} If the server refuses a value; then nothing is changed.
   * @throws {StaleConfigError} If `etag` is not the current one.
   */
  async setConfig(
    changes: LlmConfigChanges,
    options: CallOptions & { etag?: string | undefined; validateOnly?: boolean | undefined } = {},
  ): Promise<VersionedConfig> {
    const { etag = "", validateOnly = false, ...call } = this.#bounded(options, ["etag", "validateOnly"]);
    const request = config.setConfigRequest(this.llm, changes, etag, validateOnly);
    return config.decode(await this.#calls.unary(configService.setConfig, request, call));
  }

  // Models of the server.

  /** Lists the models in the cache on the server's disk, by name. Needs the `admin` role. */
  async listCachedModels(options: CallOptions = {}): Promise<CachedModel[]> {
    const call = this.#bounded(options, []);
    const models: CachedModel[] = [];
    let pageToken = "";
    do {
      const request = { llm: this.llm, pageSize: PAGE_SIZE, pageToken };
      const response = await this.#calls.unary(modelService.listCachedModels, request, call);
      models.push(...response.models.map(decode.cachedModel));
      pageToken = response.nextPageToken;
    } while (pageToken !== "");
    return models;
  }

  /**
   * Deletes models from the cache on the server's disk. Needs the `admin` role.
   *
   * @param target One model, or all.
   * @param options `dryRun`: delete nothing, and return what would be deleted.
   * @throws {InvalidRequestError} If the target names neither one model nor all, or both.
   * @throws {ModelInUseError} If an LLM uses a model.
   */
  async clearModelCache(
    target: ClearTarget,
    options: CallOptions & { dryRun?: boolean | undefined } = {},
  ): Promise<ClearedModels> {
    const { model, all } = check.record(target, "target", ["model", "all"]);
    if ((model === undefined) !== (all === true)) {
      throw new InvalidRequestError("target: must be either { model } or { all: true }", {
        field: "target",
        limit: "model or all",
      });
    }
    const { dryRun = false, ...call } = this.#bounded(options, ["dryRun"]);
    const response = await this.#calls.unary(
      modelService.clearCache,
      {
        llm: this.llm,
        target:
          model === undefined ? { $case: "all", value: {} } : { $case: "model", value: check.text(model, "model") },
        dryRun: check.bool(dryRun, "dry_run"),
      },
      call,
    );
    return decode.clearedModels(response);
  }

  /**
   * Downloads a model to the server's disk and reports progress. Needs the `admin` role.
   *
   * Leaving the iterator detaches this caller; the download stops when its last caller leaves.
   *
   * @param options `model`: one of the models that the LLM's configuration lists; its default one if absent.
   */
  pullModel(options: CallOptions & { model?: string | undefined } = {}): AsyncIterableIterator<PullProgress> {
    const { model, ...call } = checked(options, ["model"]);
    const request = { llm: this.llm, model: optionalText(model, "model") };
    return this.#calls.stream(modelService.pullModel, request, call, { read: decode.pullProgress });
  }

  /**
   * Loads the LLM's model into the server's memory and reports progress. Needs the `admin` role.
   *
   * Leaving the iterator does not stop the load.
   */
  loadModel(options: CallOptions = {}): AsyncIterableIterator<LoadProgress> {
    const call = checked(options, []);
    return this.#calls.stream(modelService.loadModel, { llm: this.llm }, call, { read: decode.loadProgress });
  }

  /**
   * Unloads the LLM's model and reports progress. Needs the `admin` role.
   *
   * @param options `force`: cancel the requests that run. Without it the call fails with `ModelInUseError` while any runs.
   */
  unloadModel(options: CallOptions & { force?: boolean | undefined } = {}): AsyncIterableIterator<UnloadProgress> {
    const { force = false, ...call } = checked(options, ["force"]);
    const request = { llm: this.llm, force: check.bool(force, "force") };
    return this.#calls.stream(modelService.unloadModel, request, call, { read: decode.unloadProgress });
  }

  // Closing.

  /** Closes the connections; calls that run end with `GenerationCancelledError`. */
  close(): void {
    this.#calls.close();
  }

  /** Closes the client at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  #generateRequest(prompt: Prompt, options: GenerateOptions): { request: GenerateRequest; call: CallOptions } {
    const { signal, timeout, metadata, ...generation } = { ...this.#defaults, ...withoutUndefined(options) };
    return { request: requests.generateRequest(this.llm, prompt, generation), call: { signal, timeout, metadata } };
  }

  /** Checks the options of a call that the timeout of this client's defaults bounds. */
  #bounded<T extends CallOptions>(options: T, names: readonly (keyof T & string)[]): T {
    return { timeout: this.#defaults.timeout, ...checked(options, names) };
  }
}

/** Checks the names of a call's options, and leaves out those that are `undefined`. */
function checked<T extends CallOptions>(options: T, names: readonly (keyof T & string)[]): T {
  check.optionNames(options, [...names, ...CALL_OPTIONS]);
  return withoutUndefined(options);
}

/** Copies options without those that are `undefined`. */
function withoutUndefined<T extends object>(options: T, field = "options"): T {
  return Object.fromEntries(
    Object.entries(check.plainObject(options, field)).filter(([, value]) => value !== undefined),
  ) as T;
}

function optionalText(value: unknown, field: string): string | undefined {
  return value === undefined ? undefined : check.text(value, field);
}
