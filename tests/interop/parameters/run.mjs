const REPORTED = ["parameters", "request_id", "labels", "has_timeout"];

export async function run({ input, connect, parse }) {
  const parameters = Object.fromEntries(Object.entries(input.all).map(([name, value]) => [camelCase(name), value]));
  const everything = { ...parameters, requestId: input.request_id, labels: input.labels, timeout: 60 };
  const llm = connect("mirror");
  const withDefaults = connect("mirror", { defaults: { temperature: 0.5, topK: 3 } });
  const requestThatArrives = async (client, options) => parse(await client.generate("hi", options));
  const reported = (request) => Object.fromEntries(REPORTED.map((name) => [name, request[name]]));

  const local = connect("local", { defaults: { temperature: 0, maxTokens: 2 } });
  const dropping = await local.complete("hi", { reasoningEffort: "high", parametersPolicy: "drop_unsupported" });
  const { logprobs } = await local.complete("hi", { topLogprobs: 2 });
  return {
    none: reported(await requestThatArrives(llm)),
    all: reported(await requestThatArrives(llm, everything)),
    client: (await requestThatArrives(withDefaults)).parameters,
    call: (await requestThatArrives(withDefaults, { temperature: 0 })).parameters,
    logprobs: {
      tokens: logprobs.map(({ token }) => token),
      alternatives: logprobs.map(({ top }) => top.length),
    },
    dropped: dropping.droppedParameters,
  };
}

/** Returns the client's name of a field: `topP` for `top_p`. */
function camelCase(name) {
  return name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
}
