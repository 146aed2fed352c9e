/** Follows one stream of events: decodes them, and knows what came before a failure. */

import type { Event } from "./answers.js";
import type { Reader } from "./calls.js";
import { event } from "./decode.js";
import { IncompleteStreamError } from "./errors.js";
import type { StreamGenerateResponse } from "./gen/abstractllm_api/v1/generation.js";

/** Reads events. */
export class EventReader implements Reader<StreamGenerateResponse, Event> {
  readonly #texts: string[] = [];
  #finished = false;

  read(message: StreamGenerateResponse): Event | undefined {
    const found = event(message);
    if (found?.type === "text_delta") this.#texts.push(found.text);
    this.#finished ||= found?.type === "finished";
    return found;
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

/** Reads the pieces of text alone. */
export class TextReader implements Reader<StreamGenerateResponse, string> {
  readonly #events = new EventReader();

  read(message: StreamGenerateResponse): string | undefined {
    const found = this.#events.read(message);
    return found?.type === "text_delta" && found.text !== "" ? found.text : undefined;
  }

  partialText(): string {
    return this.#events.partialText();
  }

  end(): void {
    this.#events.end();
  }
}
