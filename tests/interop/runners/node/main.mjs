/** The Node runner: runs the behaviours that the suite names on the standard input, one a line. */

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { parse, stringify } from "./exact.mjs";
import * as report from "./report.mjs";

// Resolves modules as a program beside the client would: its gRPC, and the client itself by its published name.
const require = createRequire(new URL("../../../../clients/node/package.json", import.meta.url));
const client = await import(pathToFileURL(require.resolve("@abstractllm/client")));

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Writes one line for the suite. */
function send(message) {
  process.stdout.write(`${stringify(message)}\n`);
}

/** Asks the suite for an action, and waits for its answer. */
async function ask(action, facts = {}) {
  send({ ask: { do: action, ...facts } });
  return parse((await lines.next()).value).answer;
}

for (let line = await lines.next(); !line.done; line = await lines.next()) {
  const { behaviour, input, servers } = parse(line.value);
  const open = [];
  /** Makes a client of one of the servers, closed after the behaviour. */
  const connect = (llm = "", { server = "plain", ...options } = {}) => {
    open.push(new client.RemoteLLM(servers[server], { llm, ...options }));
    return open.at(-1);
  };
  try {
    const { run } = await import(`../../${behaviour}/run.mjs`);
    send({ observed: await run({ client, input, servers, connect, ask, report, parse, require }) });
  } catch (error) {
    send({ failed: error.stack });
  } finally {
    for (const llm of open) llm.close();
  }
}
