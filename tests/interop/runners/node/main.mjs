/** The Node runner: runs the behaviours that it is asked for on the standard input. */

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { parse, stringify } from "./exact.mjs";
import * as report from "./report.mjs";

// The client's own gRPC, and by its own name what others install.
const require = createRequire(new URL("../../../../clients/node/package.json", import.meta.url));
const client = await import(pathToFileURL(require.resolve("@abstractllm/client")));

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Writes one line. */
function tell(message) {
  process.stdout.write(`${stringify(message)}\n`);
}

/** Asks the suite for something, and waits for its answer. */
async function ask(what, facts = {}) {
  tell({ ask: { do: what, ...facts } });
  return parse((await lines.next()).value).answer;
}

for (let line = await lines.next(); !line.done; line = await lines.next()) {
  const { behaviour, input, servers } = parse(line.value);
  const open = [];
  /** A client of one of the servers, closed after the behaviour. */
  const connect = (llm = "", { server = "plain", ...options } = {}) => {
    open.push(new client.RemoteLLM(servers[server], { llm, ...options }));
    return open.at(-1);
  };
  try {
    const { run } = await import(`../../${behaviour}/run.mjs`);
    tell({ observed: await run({ client, input, servers, connect, ask, report, parse, require }) });
  } catch (error) {
    tell({ failed: error.stack });
  } finally {
    for (const llm of open) llm.close();
  }
}
