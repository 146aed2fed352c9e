export async function run({ input, connect }) {
  const llm = connect(input.llm);
  const llms = await llm.listLlms();
  const named = (name) => llms.find((one) => one.name === name);
  const { provider, model, state, device, memoryBytes, running, queued } = named(input.local);
  return {
    llms: llms.map(({ name }) => name).sort(),
    defaults: llms.filter(({ isDefault }) => isDefault).map(({ name }) => name),
    local: { provider, model, state, device, has_memory: memoryBytes > 0, running, queued },
    spare: named("spare").state,
    capabilities: short(await llm.getCapabilities()),
    local_capabilities: short(await connect(input.local).getCapabilities()),
    tokens: await llm.countTokens(input.prompt),
  };
}

function short({ tools, regex, streaming, contextWindow, parameters }) {
  return { tools, regex, streaming, has_window: contextWindow !== undefined, parameters: parameters.sort() };
}
