export async function run({ input, connect }) {
  const mirror = connect("mirror");
  const local = connect("local", { defaults: { temperature: 0, maxTokens: 50 } });
  const arrived = async (responseFormat) =>
    JSON.parse(await mirror.generate(input.prompt, { responseFormat })).response_format;
  const real = (responseFormat) => local.generate(input.prompt, { responseFormat });
  const { name, regex, grammar } = input;
  return {
    json_object: await arrived({ type: "json_object" }),
    json_schema: await arrived({ type: "json_schema", schemaJson: "{}", name, strict: true }),
    regex: await arrived({ type: "regex", regex }),
    grammar: await arrived({ type: "grammar", grammar }),
    real: {
      object: JSON.parse(await real({ type: "json_schema", schemaJson: JSON.stringify(input.schema), name })),
      digits: await real({ type: "regex", regex }),
      word: await real({ type: "grammar", grammar }),
    },
  };
}
