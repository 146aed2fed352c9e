/** gRPC calls that end with their caller and raise the client's errors. */

import { setMaxListeners } from "node:events";
import { Client, type ClientReadableStream, type CallOptions as GrpcOptions, type ServiceError } from "@grpc/grpc-js";
import * as check from "./check.js";
import type { Connection } from "./connection.js";
import { type AbstractLLMError, GenerationCancelledError, InvalidRequestError } from "./errors.js";
import type { CallOptions } from "./messages.js";
import { errorFrom } from "./status.js";

/** What a generated service definition tells of one method. */
export interface Method<Request, Response> {
  path: string;
  requestSerialize(request: Request): Buffer;
  responseDeserialize(bytes: Buffer): Response;
}

/** Turns the messages of one stream into values. */
export interface Reader<Message, Value> {
  /** Decodes a message; `undefined` for one to skip. */
  read(message: Message): Value | undefined;
  /** The text that came so far, for an error. */
  partialText?(): string;
  /** Checks that the stream was whole. */
  end?(): void;
}

interface Call {
  cancel(): void;
}

/** The two kinds of calls on one channel. */
export class Calls {
  readonly #connection: Connection;
  readonly #client: Client;
  readonly #running = new Set<Call>();
  #closed = false;

  constructor(connection: Connection) {
    this.#connection = connection;
    const { channel, credentials, interceptors } = connection;
    this.#client = new Client("", credentials, { channelOverride: channel, interceptors });
  }

  /** Closes the channel; calls that run end. */
  close(): void {
    this.#closed = true;
    for (const call of this.#running) call.cancel();
    this.#client.close();
  }

  /** Calls and waits for the answer. */
  async unary<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
  ): Promise<Response> {
    const { path, decode, bytes, metadata, signal, deadline } = this.#prepare(method, request, options);
    this.#checkOpen(signal);
    let done = () => {};
    try {
      return await new Promise<Response>((resolve, reject) => {
        const end = (error: ServiceError | null, value?: Response) =>
          error ? reject(error) : resolve(value as Response);
        const call = this.#client.makeUnaryRequest(path, same, decode, bytes, metadata, deadline(), end);
        done = this.#track(call, signal);
      });
    } catch (error) {
      throw this.#translate(error, signal, "");
    } finally {
      done();
    }
  }

  /** Calls, with the first `next()`, and iterates; leaving the iterator cancels the call at once. */
  stream<Request, Response, Value>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
    reader: Reader<Response, Value>,
  ): AsyncIterableIterator<Value> {
    const { path, decode, bytes, metadata, signal, deadline } = this.#prepare(method, request, options);
    const start = () => {
      this.#checkOpen(signal);
      const call = this.#client.makeServerStreamRequest(path, same, decode, bytes, metadata, deadline());
      return { call, done: this.#track(call, signal) };
    };
    const translate = (error: unknown) => this.#translate(error, signal, reader.partialText?.() ?? "");
    return new Answers(start, reader, translate);
  }

  /** Checks what a call is given, and encodes its request: gRPC would refuse one that is too large, too, but without its size. */
  #prepare<Request, Response>(method: Method<Request, Response>, request: Request, options: CallOptions) {
    const timeout = check.callTimeout(options.timeout);
    const bytes = method.requestSerialize(request);
    const limit = this.#connection.sendLimit;
    if (limit >= 0 && bytes.length > limit) {
      throw new InvalidRequestError(`request: must have at most ${limit} bytes, got ${bytes.length}`, {
        reason: "MESSAGE_TOO_LARGE",
        field: "request",
        limit,
        requested: bytes.length,
      });
    }
    return {
      path: method.path,
      decode: method.responseDeserialize,
      bytes,
      metadata: this.#connection.metadata(options.metadata),
      signal: check.signal(options.signal),
      deadline: (): GrpcOptions => (timeout === undefined ? {} : { deadline: Date.now() + timeout * 1000 }),
    };
  }

  #checkOpen(signal: AbortSignal | undefined): void {
    if (this.#closed) throw closedError();
    if (signal?.aborted) throw abortedError(signal);
  }

  /** Lets a call end with the client and with its signal, until the function it returns is called. */
  #track(call: Call, signal: AbortSignal | undefined): () => void {
    const abort = () => call.cancel();
    this.#running.add(call);
    // One signal may end many calls; Node would warn of a leak at the eleventh.
    if (signal) setMaxListeners(0, signal);
    signal?.addEventListener("abort", abort);
    return () => {
      this.#running.delete(call);
      signal?.removeEventListener("abort", abort);
    };
  }

  #translate(error: unknown, signal: AbortSignal | undefined, partialText: string): unknown {
    if (!isServiceError(error)) return error;
    const found = errorFrom(error, partialText);
    // The caller's own cancellation is told as such; any other end of the call stays what it was.
    if (!(found instanceof GenerationCancelledError)) return found;
    if (this.#closed) return closedError(partialText);
    return signal?.aborted ? abortedError(signal, partialText) : found;
  }
}

/** The values of one call's stream. */
class Answers<Message, Value> implements AsyncIterableIterator<Value> {
  readonly #start: () => { call: ClientReadableStream<Message>; done: () => void };
  readonly #reader: Reader<Message, Value>;
  readonly #translate: (error: unknown) => unknown;
  #call: ClientReadableStream<Message> | undefined;
  #messages: AsyncIterator<Message> | undefined;
  #done = () => {};
  #left = false;

  constructor(
    start: () => { call: ClientReadableStream<Message>; done: () => void },
    reader: Reader<Message, Value>,
    translate: (error: unknown) => unknown,
  ) {
    this.#start = start;
    this.#reader = reader;
    this.#translate = translate;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Value, undefined>> {
    try {
      while (!this.#left) {
        this.#messages ??= this.#open();
        const { done, value } = await this.#messages.next();
        if (done) {
          // Left meanwhile, or really at its end; either way nothing more comes.
          if (!this.#left) this.#reader.end?.();
          break;
        }
        const found = this.#reader.read(value);
        if (found !== undefined && !this.#left) return { done: false, value: found };
      }
      this.#leave();
      return { done: true, value: undefined };
    } catch (error) {
      const left = this.#left;
      this.#leave();
      if (left) return { done: true, value: undefined };
      throw this.#translate(error);
    }
  }

  /** Cancels the call at once, even while a `next()` waits. */
  async return(): Promise<IteratorResult<Value, undefined>> {
    this.#leave();
    return { done: true, value: undefined };
  }

  #open(): AsyncIterator<Message> {
    const { call, done } = this.#start();
    this.#call = call;
    this.#done = done;
    call.on("error", () => {}); // the iterator tells it; nobody may listen any more when a call was left
    return call[Symbol.asyncIterator]() as AsyncIterator<Message>;
  }

  #leave(): void {
    this.#left = true;
    this.#call?.cancel();
    this.#done();
  }
}

/** The error of calls on, or cut off by, a client that was closed. */
function closedError(partialText = ""): AbstractLLMError {
  return new GenerationCancelledError("the client is closed", { partialText });
}

function abortedError(signal: AbortSignal, partialText = ""): AbstractLLMError {
  return new GenerationCancelledError("the call was aborted by its signal", { partialText, cause: signal.reason });
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && typeof error.code === "number" && "details" in error;
}

function same(bytes: Buffer): Buffer {
  return bytes;
}
