export async function run({ input, connect }) {
  const mirror = connect("mirror");
  const local = connect("local", { defaults: { temperature: 0, maxTokens: 50 } });
  const formatThatArrives = async (responseFormat) =>
    JSON.parse(await mirror.generate(input.prompt, { responseFormat })).response_format;
  const generateLocally = (responseFormat) => local.generate(input.prompt, { responseFormat });
  const { name, regex, grammar } = input;
  return {
    json_object: await formatThatArrives({ type: "json_object" }),
    json_schema: await formatThatArrives({ type: "json_schema", schemaJson: "{}", name, strict: true }),
    regex: await formatThatArrives({ type: "regex", regex }),
    grammar: await formatThatArrives({ type: "grammar", grammar }),
    real: {
      object: JSON.parse(
        await generateLocally({ type: "json_schema", schemaJson: JSON.stringify(input.schema), name }),
      ),
      digits: await generateLocally({ type: "regex", regex }),
      word: await generateLocally({ type: "grammar", grammar }),
    },
  };
}
