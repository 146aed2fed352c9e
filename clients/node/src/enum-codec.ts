/** The contract's enums <-> the client's, by name; unknown numbers pass through. */

import * as check from "./check.js";
import * as enums from "./enums.js";
import * as pbConfig from "./gen/abstractllm_api/v1/config.js";
import * as pbErrors from "./gen/abstractllm_api/v1/errors.js";
import * as pb from "./gen/abstractllm_api/v1/generation.js";
import * as pbModels from "./gen/abstractllm_api/v1/models.js";

/** One enum of the contract and its twin. */
class Codec<E extends string> {
  readonly #numbers = new Map<string, number>();
  readonly #members = new Map<number, E>();

  constructor(members: Readonly<Record<string, E>>, numbers: Readonly<Record<string, string | number>>) {
    for (const [name, member] of Object.entries(members)) {
      const number = numbers[name];
      if (typeof number !== "number") throw new TypeError(`the contract has no ${name}`);
      this.#numbers.set(member, number);
      this.#members.set(number, member);
    }
  }

  /**
   * Takes a member, or a number that this client need not know.
   *
   * @throws {InvalidRequestError} For anything else.
   */
  encode(value: unknown, field: string): number {
    if (typeof value === "number") return check.int32(value, field);
    const number = typeof value === "string" ? this.#numbers.get(value) : undefined;
    if (number === undefined) {
      const names = [...this.#numbers.keys()].join(", ");
      throw check.refuse(field, `must be one of ${names}`, value, names);
    }
    return number;
  }

  /** The member, or the number where there is none. */
  decode(number: number): E | number {
    return this.#members.get(number) ?? number;
  }
}

export const reasoningEfforts = new Codec(enums.ReasoningEffort, pb.ReasoningEffort);
export const roles = new Codec(enums.Role, pb.Role);
export const toolChoiceModes = new Codec(enums.ToolChoiceMode, pb.ToolChoiceMode);
export const parametersPolicies = new Codec(enums.ParametersPolicy, pb.ParametersPolicy);
export const finishReasons = new Codec(enums.FinishReason, pb.FinishReason);
export const llmStates = new Codec(enums.LlmState, pbModels.LlmState);
export const quantizations = new Codec(enums.Quantization, pbConfig.Quantization);
export const errorReasons = new Codec(enums.ErrorReason, pbErrors.ErrorReason);
