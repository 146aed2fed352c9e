// The Node program: calls at a steady rate through one client; see main.go.
import { RemoteLLM } from "../../../../clients/node/dist/index.js";

const task = JSON.parse(process.argv[2]);
const llm = new RemoteLLM(task.address, {
  loadBalancing: task.load_balancing,
  token: task.token || undefined,
});
const begin = performance.now();
const since = (moment) => (performance.now() - moment) / 1000;

async function one() {
  const began = performance.now();
  let outcome;
  try {
    outcome = (await llm.generate("hello", { timeout: 60 })).split(" ")[0];
  } catch (error) {
    outcome = `error: ${error.message.replaceAll("\n", " ")}`;
  }
  console.log(`${((began - begin) / 1000).toFixed(3)} ${since(began).toFixed(4)} ${outcome}`);
}

const calls = [];
for (let count = 0; count < task.rate * task.seconds; count += 1) {
  const wait = (count / task.rate) * 1000 - (performance.now() - begin);
  if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
  calls.push(one());
}
await Promise.all(calls);
llm.close();
