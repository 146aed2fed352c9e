export async function run({ input: { llm: llmName, model }, connect, report }) {
  const llm = connect(llmName);
  const reports = await report.all(llm.pullModel());
  const last = reports.at(-1);
  const done = reports.map(({ bytesDone }) => bytesDone);
  const listed = await llm.listCachedModels();
  const dryRun = await llm.clearModelCache({ model }, { dryRun: true });
  const stillListed = (await llm.listCachedModels()).length;
  return {
    progress: {
      first_is_not_done: !reports[0].done,
      last: { file: last.file, done: last.done, is_whole: last.bytesDone === last.bytesTotal },
      files: reports.some(({ file }) => file === "model.safetensors"),
      never_back: done.every((bytes, index) => index === 0 || bytes >= done[index - 1]),
    },
    listed: listed.map(({ name, revisions, sizeBytes, usedBy, partial }) => ({
      name,
      revisions: revisions.length,
      has_size: sizeBytes > 0,
      used_by: usedBy,
      partial,
    })),
    no_target: await report.outcome(llm.clearModelCache({})),
    not_listed: await report.outcome(report.all(llm.pullModel({ model: "org/other" }))),
    dry_run: clearedSummary(dryRun),
    still_listed: stillListed,
    removed: clearedSummary(await llm.clearModelCache({ model })),
    left: (await llm.listCachedModels()).length,
  };
}

function clearedSummary({ removed, freedBytes }) {
  return { removed, frees: freedBytes > 0 };
}
