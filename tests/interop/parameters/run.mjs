const KEPT = ["parameters", "request_id", "labels", "has_timeout"];

export async function run({ input, connect, parse }) {
  const all = input.all;
  const values = {
    temperature: all.temperature,
    topP: all.top_p,
    topK: all.top_k,
    minP: all.min_p,
    maxTokens: all.max_tokens,
    seed: all.seed,
    presencePenalty: all.presence_penalty,
    frequencyPenalty: all.frequency_penalty,
    repetitionPenalty: all.repetition_penalty,
    stop: all.stop,
    logitBias: all.logit_bias,
    topLogprobs: all.top_logprobs,
    reasoningEffort: all.reasoning_effort,
    requestId: input.request_id,
    labels: input.labels,
    timeout: 60,
  };
  const llm = connect("mirror");
  const own = connect("mirror", { defaults: { temperature: 0.5, topK: 3 } });
  const seen = async (by, options) => parse(await by.generate("hi", options));
  const kept = (found) => Object.fromEntries(KEPT.map((name) => [name, found[name]]));

  const local = connect("local", { defaults: { temperature: 0, maxTokens: 2 } });
  const dropping = await local.complete("hi", { reasoningEffort: "high", parametersPolicy: "drop_unsupported" });
  const { logprobs } = await local.complete("hi", { topLogprobs: 2 });
  return {
    none: kept(await seen(llm)),
    all: kept(await seen(llm, values)),
    client: (await seen(own)).parameters,
    call: (await seen(own, { temperature: 0 })).parameters,
    logprobs: {
      tokens: logprobs.map(({ token }) => token),
      alternatives: logprobs.map(({ top }) => top.length),
    },
    dropped: dropping.droppedParameters,
  };
}
