/** The contract's enums <-> the client's, by name; unknown numbers pass through. */

import * as check from "./check.js";
import * as enums from "./enums.js";
import * as pbConfig from "./gen/abstractllm_api/v1/config.js";
import * as pbErrors from "./gen/abstractllm_api/v1/errors.js";
import * as pb from "./gen/abstractllm_api/v1/generation.js";
import * as pbModels from "./gen/abstractllm_api/v1/models.js";

/** One enum of the contract, and the client's enum of the same members. */
export class EnumCodec<Member extends string> {
  readonly #numbers = new Map<string, number>();
  readonly #members = new Map<number, Member>();

  constructor(members: Readonly<Record<string, Member>>, numbers: Readonly<Record<string, string | number>>) {
    for (const [name, member] of Object.entries(members)) {
      const number = numbers[name];
      if (typeof number !== "number") throw new TypeError(`the contract has no ${name}`);
      this.#numbers.set(member, number);
      this.#members.set(number, member);
    }
  }

  /**
   * Encodes a member; a number is taken as it is, since a newer server may know more members than this client.
   *
   * @throws {InvalidRequestError} For anything else.
   */
  encode(value: unknown, field: string): number {
    if (typeof value === "number") return check.int32(value, field);
    const number = typeof value === "string" ? this.#numbers.get(value) : undefined;
    if (number === undefined) {
      const names = [...this.#numbers.keys()].join(", ");
      throw check.invalidField(field, `must be one of ${names}`, value, names);
    }
    return number;
  }

  /** Decodes a number to its member; a number without a member stays a number. */
  decode(number: number): Member | number {
    return this.#members.get(number) ?? number;
  }
}

/** The codecs, by the enums' names in the contract. */
export const enumCodecs = {
  ReasoningEffort: new EnumCodec(enums.ReasoningEffort, pb.ReasoningEffort),
  Role: new EnumCodec(enums.Role, pb.Role),
  ToolChoiceMode: new EnumCodec(enums.ToolChoiceMode, pb.ToolChoiceMode),
  ParametersPolicy: new EnumCodec(enums.ParametersPolicy, pb.ParametersPolicy),
  FinishReason: new EnumCodec(enums.FinishReason, pb.FinishReason),
  LlmState: new EnumCodec(enums.LlmState, pbModels.LlmState),
  Quantization: new EnumCodec(enums.Quantization, pbConfig.Quantization),
  ErrorReason: new EnumCodec(enums.ErrorReason, pbErrors.ErrorReason),
};
