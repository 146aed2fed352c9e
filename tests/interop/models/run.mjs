export async function run({ input, connect }) {
  const llm = connect(input.llm);
  const llms = await llm.listLlms();
  const llmNamed = (name) => llms.find((llm) => llm.name === name);
  const { provider, model, state, device, memoryBytes, running, queued } = llmNamed(input.local);
  return {
    llms: llms.map(({ name }) => name).sort(),
    defaults: llms.filter(({ isDefault }) => isDefault).map(({ name }) => name),
    local: { provider, model, state, device, has_memory: memoryBytes > 0, running, queued },
    spare: llmNamed("spare").state,
    capabilities: summary(await llm.getCapabilities()),
    local_capabilities: summary(await connect(input.local).getCapabilities()),
    tokens: await llm.countTokens(input.prompt),
  };
}

function summary({ tools, regex, streaming, contextWindow, parameters }) {
  return { tools, regex, streaming, has_window: contextWindow !== undefined, parameters: parameters.sort() };
}
