/** Readers of one stream of events: they decode it, and keep the text that came before a failure. */

import type { Event } from "./answers.js";
import type { MessageReader } from "./calls.js";
import * as decode from "./decode.js";
import { IncompleteStreamError } from "./errors.js";
import type { StreamGenerateResponse } from "./gen/abstractllm_api/v1/generation.js";

/** Reads events. */
export class EventReader implements MessageReader<StreamGenerateResponse, Event> {
  readonly #texts: string[] = [];
  #finished = false;

  read(message: StreamGenerateResponse): Event | undefined {
    const event = decode.event(message);
    if (event?.type === "text_delta") this.#texts.push(event.text);
    this.#finished ||= event?.type === "finished";
    return event;
  }

  partialText(): string {
    return this.#texts.join("");
  }

  /** @throws {IncompleteStreamError} If the stream ended without `finished`. */
  end(): void {
    if (this.#finished) return;
    throw new IncompleteStreamError("the answer ended without a finish reason", { partialText: this.partialText() });
  }
}

/** Reads the pieces of text, without the empty ones and without other events. */
export class TextReader implements MessageReader<StreamGenerateResponse, string> {
  readonly #events = new EventReader();

  read(message: StreamGenerateResponse): string | undefined {
    const event = this.#events.read(message);
    return event?.type === "text_delta" && event.text !== "" ? event.text : undefined;
  }

  partialText(): string {
    return this.#events.partialText();
  }

  end(): void {
    this.#events.end();
  }
}
