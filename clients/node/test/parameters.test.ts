import assert from "node:assert/strict";
import { test } from "node:test";
import * as v1 from "@abstractllm/client/v1";
import { EnumCodec } from "../dist/enum-codecs.js";
import { PARAMETER_CODECS } from "../dist/generation-parameters.js";
import * as codecs from "../dist/value-codecs.js";
import { connect } from "./server.js";

type Codec = codecs.ValueCodec<unknown>;

/** A value of each codec, and the contract's field of it. */
const SAMPLES = new Map<Codec, { value: unknown; field: unknown }>([
  [codecs.text, { value: "small", field: "small" }],
  [codecs.double, { value: 0.25, field: 0.25 }],
  [codecs.int32, { value: -3, field: -3 }],
  [codecs.int64, { value: 2n ** 62n, field: 2n ** 62n }],
  [codecs.texts, { value: ["a", "b"], field: ["a", "b"] }],
  [codecs.numberByToken, { value: { 7: 0.5 }, field: new Map([[7, 0.5]]) }],
]);

function sample(codec: Codec): { value: unknown; field: unknown } {
  if (codec instanceof EnumCodec) return { value: codec.decode(1), field: 1 };
  const pair = SAMPLES.get(codec);
  assert.ok(pair, "a codec without a sample");
  return pair;
}

test("the table has the contract's parameters, all of them", () => {
  assert.deepEqual(Object.keys(PARAMETER_CODECS), Object.keys(v1.GenerationParameters.create()));
});

for (const [name, codec] of Object.entries(PARAMETER_CODECS)) {
  const { value, field } = sample(codec);
  const parameters = { [name]: field } as unknown as v1.GenerationParameters;

  test(`the parameter ${name} arrives in a request`, async (t) => {
    const { llm, server } = await connect(t, { generate: () => v1.GenerateResponse.create() });
    await llm.generate("Hi", { [name]: value });
    assert.deepEqual(server.calls[0]?.request.parameters, v1.GenerationParameters.create(parameters));
  });

  test(`the parameter ${name} of a configuration is read and changed`, async (t) => {
    // `model` is a key of the configuration itself, not one of its parameters.
    const config = (name === "model" ? parameters : { parameters }) as v1.LlmConfig;
    const path = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    const { llm, server } = await connect(t, {
      getConfig: () => v1.GetConfigResponse.create({ config }),
      setConfig: () => v1.SetConfigResponse.create({ config }),
    });
    assert.deepEqual((await llm.getConfig()).config, { [name]: value });
    assert.deepEqual((await llm.setConfig({ [name]: value })).config, { [name]: value });
    await llm.setConfig({ [name]: null });
    const [, change, clearing] = server.calls.map(({ request }) => request);
    const updateMask = [name === "model" ? path : `parameters.${path}`];
    assert.deepEqual(change, v1.SetConfigRequest.create({ config, updateMask }));
    assert.deepEqual(clearing, v1.SetConfigRequest.create({ config: {}, updateMask }));
  });
}
