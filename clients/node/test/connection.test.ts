import assert from "node:assert/strict";
import fs, { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect as connectTo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, type TestContext, test } from "node:test";
import { promisify } from "node:util";
import {
  ConfigurationError,
  InvalidRequestError,
  ProviderUnavailableError,
  type TlsOptions,
} from "@abstractllm/client";
import * as v1 from "@abstractllm/client/v1";
import { credentials, Metadata, ServerCredentials, status } from "@grpc/grpc-js";
import selfsigned from "selfsigned";
import { client, connect, fail, failure, serve } from "./server.js";

const answer = { generate: () => v1.GenerateResponse.create({ text: "Hi" }) };
let authority: selfsigned.GenerateResult;
let server: selfsigned.GenerateResult;
let caller: selfsigned.GenerateResult;

before(async () => {
  authority = await selfsigned.generate([{ name: "commonName", value: "authority" }], {
    extensions: [{ name: "basicConstraints", cA: true }],
  });
  const ca = { key: authority.private, cert: authority.cert };
  server = await selfsigned.generate([{ name: "commonName", value: "server" }], {
    ca,
    extensions: [{ name: "subjectAltName", altNames: [{ type: 7, ip: "127.0.0.1" }] }],
  });
  caller = await selfsigned.generate([{ name: "commonName", value: "caller" }], { ca });
});

/** Starts a server with TLS, or with mutual TLS, and a client of it. */
async function secured(t: TestContext, mutual: boolean, tls: boolean | TlsOptions) {
  const pair = { private_key: Buffer.from(server.private), cert_chain: Buffer.from(server.cert) };
  const roots = mutual ? Buffer.from(authority.cert) : null;
  const { address } = await serve(t, answer, { credentials: ServerCredentials.createSsl(roots, [pair], mutual) });
  // A handshake that fails is UNAVAILABLE, and would be tried again for seconds.
  return client(t, address, { tls, channelOptions: { "grpc.enable_retries": 0 } });
}

test("TLS with roots that the caller names", async (t) => {
  const llm = await secured(t, false, { rootCertificates: authority.cert });
  assert.equal(await llm.generate("Hi"), "Hi");
});

test("TLS refuses a server that the roots do not vouch for", async (t) => {
  await failure((await secured(t, false, true)).generate("Hi"), ProviderUnavailableError);
  await failure((await secured(t, false, { rootCertificates: caller.cert })).generate("Hi"), ProviderUnavailableError);
});

test("mutual TLS", async (t) => {
  const pair = { privateKey: caller.private, certificateChain: Buffer.from(caller.cert) };
  const llm = await secured(t, true, { rootCertificates: Buffer.from(authority.cert), ...pair });
  assert.equal(await llm.generate("Hi"), "Hi");
});

test("mutual TLS refuses a client without a certificate", async (t) => {
  const llm = await secured(t, true, { rootCertificates: authority.cert });
  await failure(llm.generate("Hi"), ProviderUnavailableError);
});

test("a token goes with every call, those of the stubs too", async (t) => {
  const { llm, server } = await connect(t, answer, { token: "secret" });
  await llm.generate("Hi");
  const stub = llm.stubs.generation;
  await promisify(stub.generate.bind(stub) as never)(v1.GenerateRequest.create() as never);
  const sent = server.calls.map(({ metadata }) => metadata.get("authorization"));
  assert.deepEqual(sent, [["Bearer secret"], ["Bearer secret"]]);
});

test("a client without a token sends none", async (t) => {
  const { llm, server } = await connect(t, answer);
  await llm.generate("Hi");
  assert.deepEqual(server.calls[0]?.metadata.get("authorization"), []);
});

test("other gRPC clients can share the channel", async (t) => {
  const { llm } = await connect(t, answer);
  const options = { channelOverride: llm.channel };
  const stub = new v1.GenerationServiceClient(llm.address, credentials.createInsecure(), options);
  const response = await new Promise<v1.GenerateResponse>((resolve, reject) => {
    stub.generate(v1.GenerateRequest.create(), new Metadata(), (error, value) =>
      error ? reject(error) : resolve(value),
    );
  });
  assert.equal(response.text, "Hi");
});

test("metadata go with every call: the client's, made anew each time, and the call's own", async (t) => {
  let count = 0;
  const metadata = () => {
    count += 1;
    return { traceparent: `00-${count}`, "x-both": "client" };
  };
  const { llm, server } = await connect(t, answer, { metadata });
  await llm.generate("Hi");
  await llm.generate("Hi", { metadata: { tracestate: "a=b", "x-both": "call" } });
  const sent = server.calls.map((call) => ["traceparent", "tracestate", "x-both"].map((key) => call.metadata.get(key)));
  assert.deepEqual(sent, [
    [["00-1"], [], ["client"]],
    [["00-2"], ["a=b"], ["call"]],
  ]);
});

test("several addresses are used in turn", async (t) => {
  const servers = await Promise.all([serve(t, answer), serve(t, answer)]);
  const llm = client(t, `ipv4:${servers.map(({ address }) => address).join(",")}`);
  for (let index = 0; index < 500 && servers.some(({ calls }) => calls.length === 0); index += 1) {
    await llm.generate("Hi"); // until both are connected
  }
  const countsBefore = servers.map(({ calls }) => calls.length);
  for (let index = 0; index < 10; index += 1) await llm.generate("Hi");
  assert.deepEqual(
    servers.map(({ calls }, index) => calls.length - (countsBefore[index] ?? 0)),
    [5, 5],
  );
});

test("one of several addresses that is dead is left out", async (t) => {
  const { address } = await serve(t, answer);
  const llm = client(t, `ipv4:127.0.0.1:1,${address}`, { defaults: { timeout: 20 } });
  for (let index = 0; index < 4; index += 1) assert.equal(await llm.generate("Hi"), "Hi");
});

test("a name is looked up", async (t) => {
  const { address } = await serve(t, answer);
  const llm = client(t, `dns:///localhost:${address.split(":")[1]}`, { defaults: { timeout: 20 } });
  assert.equal(await llm.generate("Hi"), "Hi");
});

test("a Unix socket", { skip: process.platform === "win32" }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "llm-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const { address } = await serve(t, answer, { address: `unix:${join(folder, "socket")}` });
  assert.equal(await client(t, address).generate("Hi"), "Hi");
});

test("a request beyond the limit is refused before it is sent, with its size", async (t) => {
  const { llm, server } = await connect(t, answer);
  const error = await failure(llm.generate("x".repeat(16 << 20)), InvalidRequestError);
  assert.deepEqual(
    [error.reason, error.field, error.limit, error.requested, error.retryable],
    ["MESSAGE_TOO_LARGE", "request", 16 << 20, (16 << 20) + 5, false],
  );
  assert.equal(server.calls.length, 0);
});

test("the limit is that of the channel's options", async (t) => {
  const { llm } = await connect(t, answer, { channelOptions: { "grpc.max_send_message_length": 100 } });
  assert.equal((await failure(llm.generate("x".repeat(99)), InvalidRequestError)).limit, 100);
});

test("an answer just below the limit comes, one beyond it is MESSAGE_TOO_LARGE", async (t) => {
  let length = 15 << 20;
  const { llm } = await connect(t, { generate: () => v1.GenerateResponse.create({ text: "x".repeat(length) }) });
  assert.equal((await llm.generate("Hi")).length, length);
  length = 17 << 20;
  const error = await failure(llm.generate("Hi"), InvalidRequestError);
  assert.deepEqual([error.reason, error.limit, error.retryable], ["MESSAGE_TOO_LARGE", 16 << 20, false]);
  assert.ok(Number(error.requested) > 17 << 20, String(error.requested));
});

test("a server that is gone without a word is noticed while a call runs", async (t) => {
  const { address, calls } = await serve(t, { generate: () => new Promise(() => {}) });
  const sockets: Socket[] = [];
  const wire = createServer((near) => {
    const far = connectTo(Number(address.split(":")[1]));
    sockets.push(near, far);
    near.pipe(far).pipe(near);
  });
  await new Promise<void>((resolve) => wire.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    wire.close();
  });
  const channelOptions = { "grpc.keepalive_time_ms": 200, "grpc.keepalive_timeout_ms": 200, "grpc.enable_retries": 0 };
  const llm = client(t, `127.0.0.1:${(wire.address() as AddressInfo).port}`, { channelOptions });
  const answer = llm.generate("Hi");
  while (calls.length === 0) await new Promise(setImmediate);
  for (const socket of sockets) socket.unpipe().pause();
  await failure(answer, ProviderUnavailableError);
});

test("a server that cannot be reached is told as unavailable", async (t) => {
  const stopped = await serve(t, answer);
  stopped.stop();
  const llm = client(t, stopped.address, { channelOptions: { "grpc.enable_retries": 0 } });
  const error = await failure(llm.generate("Hi"), ProviderUnavailableError);
  assert.deepEqual([error.reason, error.retryable], ["PROVIDER_UNAVAILABLE", true]);
});

test("a kind of balancing that there is none of is refused, and both others work", async (t) => {
  const { address } = await serve(t, answer);
  const options = { loadBalancing: "fastest" as "round_robin" };
  assert.throws(
    () => client(t, address, options),
    (error) => error instanceof ConfigurationError && error.field === "loadBalancing",
  );
  for (const loadBalancing of ["round_robin", "weighted_round_robin"] as const) {
    assert.equal(await client(t, address, { loadBalancing }).generate("Hi"), "Hi");
  }
});

test("the type of load reports is read once, not for each answer", async (t) => {
  const { mock } = t.mock.method(fs, "readFileSync");
  const report = Buffer.from([0x09, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f]); // cpu_utilization: 0.5
  const refuse = () => fail(status.INVALID_ARGUMENT, "no", { "endpoint-load-metrics-bin": report });
  const { llm } = await connect(t, { generate: refuse }, { loadBalancing: "weighted_round_robin" });
  for (let call = 0; call < 10; call += 1) await failure(llm.generate("Hi"), InvalidRequestError);
  const files = mock.calls.map((call) => String(call.arguments[0]));
  assert.equal(files.filter((file) => file.endsWith("/orca.proto")).length, 1);
});
