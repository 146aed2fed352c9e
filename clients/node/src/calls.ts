/** gRPC calls that end when their caller leaves, and fail with the client's errors. */

import { setMaxListeners } from "node:events";
import { Client, type ClientReadableStream, type CallOptions as GrpcOptions, type ServiceError } from "@grpc/grpc-js";
import * as check from "./check.js";
import type { Connection } from "./connection.js";
import { type AbstractLLMError, GenerationCancelledError, InvalidRequestError } from "./errors.js";
import type { CallOptions } from "./messages.js";
import { errorFrom } from "./status.js";

/** One method of a generated service definition. */
export interface Method<Request, Response> {
  path: string;
  requestSerialize(request: Request): Buffer;
  responseDeserialize(bytes: Buffer): Response;
}

/** A decoder of the messages of one stream. */
export interface MessageReader<Message, Value> {
  /** Decodes a message; `undefined` skips it. */
  read(message: Message): Value | undefined;
  /** Returns the text that came so far, for an error. */
  partialText?(): string;
  /** Checks, when the stream has ended, that it was complete. */
  end?(): void;
}

interface Cancellable {
  cancel(): void;
}

/** The calls of one client: unary ones and streams, on one channel. */
export class Calls {
  readonly #connection: Connection;
  readonly #client: Client;
  readonly #running = new Set<Cancellable>();
  #closed = false;

  constructor(connection: Connection) {
    this.#connection = connection;
    const { channel, credentials, interceptors } = connection;
    this.#client = new Client("", credentials, { channelOverride: channel, interceptors });
  }

  /** Closes the channel, and cancels the calls that run. */
  close(): void {
    this.#closed = true;
    for (const call of this.#running) call.cancel();
    this.#client.close();
  }

  /** Calls, and waits for the answer. */
  async unary<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
  ): Promise<Response> {
    const { path, decode, bytes, metadata, signal, deadline } = this.#prepare(method, request, options);
    this.#checkOpen(signal);
    let untrack = () => {};
    try {
      return await new Promise<Response>((resolve, reject) => {
        const settle = (error: ServiceError | null, value?: Response) =>
          error ? reject(error) : resolve(value as Response);
        const call = this.#client.makeUnaryRequest(path, sendEncoded, decode, bytes, metadata, deadline(), settle);
        untrack = this.#track(call, signal);
      });
    } catch (error) {
      throw this.#translate(error, signal, "");
    } finally {
      untrack();
    }
  }

  /** Returns an iterator that calls with its first `next()`; leaving it cancels the call at once. */
  stream<Request, Response, Value>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
    reader: MessageReader<Response, Value>,
  ): AsyncIterableIterator<Value> {
    const { path, decode, bytes, metadata, signal, deadline } = this.#prepare(method, request, options);
    const start = () => {
      this.#checkOpen(signal);
      const call = this.#client.makeServerStreamRequest(path, sendEncoded, decode, bytes, metadata, deadline());
      return { call, untrack: this.#track(call, signal) };
    };
    const translate = (error: unknown) => this.#translate(error, signal, reader.partialText?.() ?? "");
    return new ResponseIterator(start, reader, translate);
  }

  /**
   * Checks the options of a call, and encodes its request.
   *
   * A request that is too large is refused here, with its size and the limit; gRPC's own error may lack them.
   */
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

  /** Cancels a call when the client is closed or its signal aborts, until the returned function is called. */
  #track(call: Cancellable, signal: AbortSignal | undefined): () => void {
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
    const translated = errorFrom(error, partialText);
    // Only a cancellation can be the caller's own; any other failure stays what it was.
    if (!(translated instanceof GenerationCancelledError)) return translated;
    if (this.#closed) return closedError(partialText);
    return signal?.aborted ? abortedError(signal, partialText) : translated;
  }
}

/** An iterator over the values of one stream. */
class ResponseIterator<Message, Value> implements AsyncIterableIterator<Value> {
  readonly #start: () => { call: ClientReadableStream<Message>; untrack: () => void };
  readonly #reader: MessageReader<Message, Value>;
  readonly #translate: (error: unknown) => unknown;
  #call: ClientReadableStream<Message> | undefined;
  #messages: AsyncIterator<Message> | undefined;
  #untrack = () => {};
  #ended = false;

  constructor(
    start: () => { call: ClientReadableStream<Message>; untrack: () => void },
    reader: MessageReader<Message, Value>,
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
      while (!this.#ended) {
        this.#messages ??= this.#open();
        const { done, value } = await this.#messages.next();
        if (done) {
          // A stream that was left while it waited ends here, too; that it is incomplete is no error then.
          if (!this.#ended) this.#reader.end?.();
          break;
        }
        const decoded = this.#reader.read(value);
        if (decoded !== undefined && !this.#ended) return { done: false, value: decoded };
      }
      this.#end();
      return { done: true, value: undefined };
    } catch (error) {
      const wasEnded = this.#ended;
      this.#end();
      if (wasEnded) return { done: true, value: undefined };
      throw this.#translate(error);
    }
  }

  /** Cancels the call at once, even while a `next()` waits. */
  async return(): Promise<IteratorResult<Value, undefined>> {
    this.#end();
    return { done: true, value: undefined };
  }

  #open(): AsyncIterator<Message> {
    const { call, untrack } = this.#start();
    this.#call = call;
    this.#untrack = untrack;
    // `next()` throws the error. After `return()` nobody calls `next()`, and an unheard error would end the process.
    call.on("error", () => {});
    return call[Symbol.asyncIterator]() as AsyncIterator<Message>;
  }

  #end(): void {
    this.#ended = true;
    this.#call?.cancel();
    this.#untrack();
  }
}

/** Makes the error of calls that a closed client refuses, or that ran when it was closed. */
function closedError(partialText = ""): AbstractLLMError {
  return new GenerationCancelledError("the client is closed", { partialText });
}

function abortedError(signal: AbortSignal, partialText = ""): AbstractLLMError {
  return new GenerationCancelledError("the call was aborted by its signal", { partialText, cause: signal.reason });
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && typeof error.code === "number" && "details" in error;
}

/** Serializes a request that is encoded already. */
function sendEncoded(bytes: Buffer): Buffer {
  return bytes;
}
