import { isDeepStrictEqual } from "node:util";

export async function run({ input, connect, report }) {
  const llm = connect(input.llm);
  const before = await llm.getConfig();
  const { etag } = before;
  const checked = await llm.setConfig({ temperature: input.temperature }, { validateOnly: true });
  const unchanged = isDeepStrictEqual(await llm.getConfig(), before);
  const changes = { temperature: input.temperature, systemPrompt: input.system_prompt };
  const changed = await llm.setConfig(changes, { etag });
  const currentEtag = (await llm.getConfig()).etag;
  const stale = await report.outcome(llm.setConfig({ temperature: 0.75 }, { etag }), "field");
  const wrong = await report.outcome(llm.setConfig({ temperature: input.wrong }), "field");
  const cleared = await llm.setConfig({ systemPrompt: null });
  const { systemPrompt, temperature } = before.config;
  return {
    before: summary(before),
    checked: summary(checked),
    unchanged,
    changed: summary(changed),
    new_etag: currentEtag !== "" && currentEtag !== etag,
    cleared: summary(cleared),
    stale,
    wrong,
    restored: summary(await llm.setConfig({ systemPrompt, temperature })),
  };
}

function summary({ config: { model, systemPrompt, temperature } }) {
  return { model, system_prompt: systemPrompt, temperature };
}
