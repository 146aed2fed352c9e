/** A scripted server in this process, over a real socket. */

import { once } from "node:events";
import type { TestContext } from "node:test";
import { promisify } from "node:util";
import { RemoteLLM, type RemoteLLMOptions } from "@abstractllm/client";
import * as v1 from "@abstractllm/client/v1";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerOptions,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";

/** A call that came in. */
export interface ReceivedCall {
  method: string;
  // biome-ignore lint/suspicious/noExplicitAny: each method has its own type of request, and tests know which they sent
  request: any;
  metadata: Metadata;
  /** Resolves when the caller has left. */
  cancelled: Promise<unknown>;
  deadline: number;
  peer: string;
}

/** A status other than OK, with which a call ends. */
export interface Failure {
  code: status;
  details?: string;
  metadata?: Metadata;
}

type Unary = (call: ReceivedCall) => unknown | Promise<unknown>;
type Streamed = (call: ReceivedCall) => AsyncIterable<unknown> | Iterable<unknown>;
type Method =
  | keyof typeof v1.GenerationServiceService
  | keyof typeof v1.ModelServiceService
  | keyof typeof v1.ConfigServiceService;

/** The handlers of the methods; they throw a `Failure`. */
export type Handlers = { [Name in Method]?: Unary | Streamed };

/** A server, and the calls that it received. */
export interface Served {
  address: string;
  calls: ReceivedCall[];
  stop(): void;
}

/** Starts a server that ends with the test. */
export async function serve(
  t: TestContext,
  handlers: Handlers,
  { address = "127.0.0.1:0", credentials = ServerCredentials.createInsecure(), options = {} as ServerOptions } = {},
): Promise<Served> {
  const server = new Server({ "grpc.max_receive_message_length": 64 << 20, ...options });
  const calls: ReceivedCall[] = [];
  for (const service of [v1.GenerationServiceService, v1.ModelServiceService, v1.ConfigServiceService]) {
    const methods = Object.entries(service).map(([name, { responseStream }]) => {
      const handler = handlers[name as Method] ?? (() => fail(status.UNIMPLEMENTED));
      return [name, responseStream ? streamed(name, handler as Streamed, calls) : unary(name, handler as Unary, calls)];
    });
    server.addService(service, Object.fromEntries(methods));
  }
  const port = await promisify(server.bindAsync.bind(server))(address, credentials);
  const stop = () => server.forceShutdown();
  t.after(stop);
  return { address: address.startsWith("unix:") ? address : `127.0.0.1:${port}`, calls, stop };
}

/** Starts a server and a client of it; both end with the test. */
export async function connect(
  t: TestContext,
  handlers: Handlers,
  options: RemoteLLMOptions = {},
): Promise<{ llm: RemoteLLM; server: Served }> {
  const server = await serve(t, handlers);
  return { llm: client(t, server.address, options), server };
}

/** Makes a client that ends with the test. */
export function client(t: TestContext, address: string, options: RemoteLLMOptions = {}): RemoteLLM {
  const llm = new RemoteLLM(address, options);
  t.after(() => llm.close());
  return llm;
}

/** Ends a call with a status. */
export function fail(code: status, details = "synthetic", trailers: Record<string, string | Buffer> = {}): never {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(trailers)) metadata.set(key, value);
  throw { code, details, metadata } satisfies Failure;
}

/** Makers of the contract's events. */
export const events = {
  started: (llm = "echo") =>
    v1.StreamGenerateResponse.create({
      event: { $case: "started", value: { id: "1", llm, provider: "fake", model: "m" } },
    }),
  text: (text: string) => v1.StreamGenerateResponse.create({ event: { $case: "textDelta", value: { text } } }),
  finished: (finishReason = v1.FinishReason.STOP) =>
    v1.StreamGenerateResponse.create({ event: { $case: "finished", value: { finishReason } } }),
};

/** Returns all values of an iterator. */
export async function all<T>(iterator: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of iterator) values.push(value);
  return values;
}

/** Returns the error that a promise fails with, which must be of a class. */
export async function failure<T extends Error>(
  promise: Promise<unknown>,
  kind: new (...parameters: never[]) => T,
): Promise<T> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof kind) return error;
    throw error;
  }
  throw new Error(`no ${kind.name}`);
}

function unary(method: string, handler: Unary, calls: ReceivedCall[]) {
  return (call: ServerUnaryCall<unknown, unknown>, answer: sendUnaryData<unknown>) => {
    const received = receive(method, call);
    calls.push(received);
    Promise.resolve(received)
      .then(handler)
      .then(
        (value) => answer(null, value),
        (error) => answer(error),
      );
  };
}

function streamed(method: string, handler: Streamed, calls: ReceivedCall[]) {
  return async (call: ServerWritableStream<unknown, unknown>) => {
    const received = receive(method, call);
    calls.push(received);
    try {
      for await (const message of handler(received)) {
        if (call.cancelled) return;
        if (!call.write(message)) await once(call, "drain");
      }
      call.end();
    } catch (error) {
      call.emit("error", error);
    }
  };
}

function receive(
  method: string,
  call: ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>,
): ReceivedCall {
  const deadline = call.getDeadline();
  return {
    method,
    request: call.request,
    metadata: call.metadata,
    cancelled: new Promise((resolve) => call.once("cancelled", resolve)),
    deadline: typeof deadline === "number" ? deadline : deadline.getTime(),
    peer: call.getPeer(),
  };
}
