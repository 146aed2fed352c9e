import { isDeepStrictEqual } from "node:util";

export async function run({ input, connect, report }) {
  const llm = connect(input.llm);
  const before = await llm.getConfig();
  const { etag } = before;
  const checked = await llm.setConfig({ temperature: input.temperature }, { validateOnly: true });
  const unchanged = isDeepStrictEqual(await llm.getConfig(), before);
  const changes = { temperature: input.temperature, systemPrompt: input.system_prompt };
  const changed = await llm.setConfig(changes, { etag });
  const now = (await llm.getConfig()).etag;
  const stale = await report.outcome(llm.setConfig({ temperature: 0.75 }, { etag }), "field");
  const wrong = await report.outcome(llm.setConfig({ temperature: input.wrong }), "field");
  const cleared = await llm.setConfig({ systemPrompt: null });
  const { systemPrompt, temperature } = before.config;
  return {
    before: short(before),
    checked: short(checked),
    unchanged,
    changed: short(changed),
    new_etag: now !== "" && now !== etag,
    cleared: short(cleared),
    stale,
    wrong,
    restored: short(await llm.setConfig({ systemPrompt, temperature })),
  };
}

function short({ config: { model, systemPrompt, temperature } }) {
  return { model, system_prompt: systemPrompt, temperature };
}
