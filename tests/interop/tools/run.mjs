export async function run({ input, connect, report }) {
  const { name, description, parameters_json_schema: parametersJsonSchema } = input.tool;
  const tools = [{ name, description, parametersJsonSchema }];
  const mirror = connect("mirror");
  const requestThatArrives = async (prompt, options) =>
    JSON.parse(await mirror.generate(prompt, { tools, ...options }));

  const answer = await connect("echo").complete(input.prompt, { tools, providerOptions: { script: input.script } });
  const [reasoning, call] = answer.message.parts;
  const auto = await requestThatArrives(input.prompt);
  const conversation = [
    { role: "user", content: input.prompt },
    { role: "assistant", parts: [{ ...reasoning, providerState: Buffer.from(input.state, "hex") }, call] },
    { role: "tool", parts: [{ type: "tool_result", toolCallId: call.id, content: input.result }] },
  ];
  return {
    call: report.part(call).tool_call,
    finish_reason: answer.finishReason,
    auto: { tools: auto.tools, tool_choice: auto.tool_choice },
    required: (await requestThatArrives(input.prompt, { toolChoice: "required" })).tool_choice,
    named: (await requestThatArrives(input.prompt, { toolChoice: { name } })).tool_choice,
    returned: (await requestThatArrives(conversation)).messages,
  };
}
