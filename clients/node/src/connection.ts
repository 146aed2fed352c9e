/** The connection of a client: channel options, retry policy, credentials. They match the server's limits. */

import {
  Channel,
  type ChannelCredentials,
  type ChannelOptions,
  credentials,
  InterceptingCall,
  type Interceptor,
  Metadata,
} from "@grpc/grpc-js";
import * as check from "./check.js";
import { ConfigurationError } from "./errors.js";
import { cacheLoadReportType } from "./load-reports.js";
import type { CallMetadata } from "./messages.js";

/** The most bytes of one request or one answer; the server's default is the same. */
const MESSAGE_LIMIT = 16 * 1024 * 1024;

/** The ways in which calls are spread over the servers of `dns:///name:port`, with gRPC's settings of each. */
const LOAD_BALANCING = {
  round_robin: {},
  // Servers send averages: a new one need not be watched for gRPC's ten seconds before it has its weight. grpc-js spells
  // the key as it is here, all else of gRPC in camel case.
  weighted_round_robin: { blackout_period: "2s" },
};

const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [{}],
      // gRPC waits as long as the server's `grpc-retry-pushback-ms` says, and gives up where it says -1.
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.2s",
        maxBackoff: "10s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
};

const CHANNEL_OPTIONS: ChannelOptions = {
  "grpc.service_config_disable_resolution": 1,
  "grpc.max_send_message_length": MESSAGE_LIMIT,
  "grpc.max_receive_message_length": MESSAGE_LIMIT,
  // A request that no longer fits these buffers is silently not retried. The number of calls bounds the sum.
  "grpc.per_rpc_retry_buffer_size": MESSAGE_LIMIT + 64 * 1024,
  "grpc.retry_buffer_size": Number.MAX_SAFE_INTEGER,
  // A server that is gone without a word is noticed within 40 seconds while a call runs.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
};

/** Certificates, each as PEM. */
export interface TlsOptions {
  /** The roots to trust instead of Node's own. */
  rootCertificates?: string | Uint8Array | undefined;
  /** The client's key, for mutual TLS. */
  privateKey?: string | Uint8Array | undefined;
  /** The client's certificates, for mutual TLS. */
  certificateChain?: string | Uint8Array | undefined;
}

/** Credentials, metadata and gRPC's own options of a client. */
export interface ConnectionOptions {
  /** A bearer token; sent with every call. Without TLS it travels in the clear. */
  token?: string | undefined;
  /** `true` for TLS with Node's root certificates. */
  tls?: boolean | TlsOptions | undefined;
  /** Metadata of every call, such as a trace context; or a function that returns them, called at each call. */
  metadata?: CallMetadata | (() => CallMetadata) | undefined;
  /**
   * How calls are spread over the servers of `dns:///name:port`: `round_robin` if absent; `weighted_round_robin` sends
   * fewer calls to servers that have more to do, as they tell with each answer.
   */
  loadBalancing?: "round_robin" | "weighted_round_robin" | undefined;
  /** Further gRPC channel options; they win over the client's own. */
  channelOptions?: ChannelOptions | undefined;
  /** gRPC interceptors for every call. */
  interceptors?: readonly Interceptor[] | undefined;
}

/** A channel, with the interceptors, limit and metadata of every call on it. */
export interface Connection {
  channel: Channel;
  credentials: ChannelCredentials;
  interceptors: Interceptor[];
  /** The most bytes of a request. */
  sendLimit: number;
  /** Makes the metadata of the next call: the client's, and over them those of the call. */
  metadata: (callMetadata: CallMetadata | undefined) => Metadata;
}

/**
 * Makes a channel; it connects with the first call.
 *
 * @param address `host:port`, `unix:/path/of/a/socket`, or `dns:///name:port` for all servers of a name.
 * @throws {ConfigurationError} For a malformed address, token, metadata or certificate, or half a key pair.
 */
export function connect(address: string, options: ConnectionOptions): Connection {
  if (typeof address !== "string" || address === "" || /^https?:/.test(address)) {
    const shown = JSON.stringify(address)?.slice(0, 80);
    throw new ConfigurationError(`address must be host:port or unix:/path, got ${shown}`, {
      field: "address",
      limit: "host:port or unix:/path",
      requested: shown,
    });
  }
  const channelOptions = {
    "grpc.service_config": serviceConfig(options.loadBalancing ?? "round_robin"),
    ...CHANNEL_OPTIONS,
    ...options.channelOptions,
  };
  const channelCredentials = makeCredentials(options.tls ?? false);
  const { metadata } = options;
  if (typeof metadata !== "function") mergeMetadata(metadata);
  return {
    channel: makeChannel(address, channelCredentials, channelOptions),
    credentials: channelCredentials,
    interceptors: [...(options.interceptors ?? []), ...authorization(options.token)],
    sendLimit: channelOptions["grpc.max_send_message_length"] ?? MESSAGE_LIMIT,
    metadata: (callMetadata) => mergeMetadata(typeof metadata === "function" ? metadata() : metadata, callMetadata),
  };
}

/** Makes gRPC's service configuration: the policy of balancing, and that of retries. */
function serviceConfig(policy: keyof typeof LOAD_BALANCING): string {
  if (!Object.hasOwn(LOAD_BALANCING, policy)) {
    const kinds = Object.keys(LOAD_BALANCING).join(" or ");
    const shown = JSON.stringify(policy)?.slice(0, 80);
    throw new ConfigurationError(`loadBalancing must be ${kinds}, got ${shown}`, {
      field: "loadBalancing",
      limit: kinds,
      requested: shown,
    });
  }
  if (policy === "weighted_round_robin") cacheLoadReportType();
  return JSON.stringify({ loadBalancingConfig: [{ [policy]: LOAD_BALANCING[policy] }], ...SERVICE_CONFIG });
}

/** Makes gRPC's metadata; where two sources have the same key, the later one wins. */
function mergeMetadata(...sources: (CallMetadata | undefined)[]): Metadata {
  const metadata = new Metadata();
  const entries = sources.flatMap((source) => Object.entries(check.plainObject(source ?? {}, "metadata")));
  for (const [key, value] of entries) {
    try {
      metadata.set(key, check.text(value, `metadata.${key}`));
    } catch (cause) {
      const message = `metadata.${key}: ${cause instanceof Error ? cause.message : String(cause)}`;
      throw new ConfigurationError(message, { field: "metadata", requested: key, cause });
    }
  }
  return metadata;
}

function makeChannel(address: string, channelCredentials: ChannelCredentials, options: ChannelOptions): Channel {
  try {
    return new Channel(address, channelCredentials, options);
  } catch (cause) {
    const message = `address or channelOptions: ${cause instanceof Error ? cause.message : String(cause)}`;
    throw new ConfigurationError(message, { field: "address", requested: address, cause });
  }
}

function authorization(token: string | undefined): Interceptor[] {
  if (token === undefined) return [];
  if (!/^[\x20-\x7e]+$/.test(token)) {
    throw new ConfigurationError("token must be printable ASCII, and not empty", { field: "token" });
  }
  return [
    (options, nextCall) =>
      new InterceptingCall(nextCall(options), {
        start: (metadata, listener, next) => {
          metadata.set("authorization", `Bearer ${token}`);
          next(metadata, listener);
        },
      }),
  ];
}

function makeCredentials(tls: boolean | TlsOptions): ChannelCredentials {
  if (tls === false) return credentials.createInsecure();
  const { rootCertificates, privateKey, certificateChain } = tls === true ? {} : tls;
  if ((privateKey === undefined) !== (certificateChain === undefined)) {
    throw new ConfigurationError("privateKey and certificateChain must be given together", {
      field: "certificateChain",
    });
  }
  try {
    return credentials.createSsl(pem(rootCertificates), pem(privateKey), pem(certificateChain));
  } catch (cause) {
    // The message of the cause is OpenSSL's; it names no secret.
    const message = `tls: ${cause instanceof Error ? cause.message : String(cause)}`;
    throw new ConfigurationError(message, { field: "tls", cause });
  }
}

function pem(value: string | Uint8Array | undefined): Buffer | null {
  return value === undefined ? null : Buffer.from(value);
}
