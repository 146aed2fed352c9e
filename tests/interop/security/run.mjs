import { readFileSync } from "node:fs";

export async function run({ input, servers, connect, report }) {
  const rootCertificates = readFileSync(servers.root_certificates);
  const otherRootCertificates = readFileSync(servers.other_root_certificates);
  const certificate = {
    certificateChain: readFileSync(servers.client_certificate),
    privateKey: readFileSync(servers.client_key),
  };
  const client = (server, tls, token) => connect("", { server, tls, token, defaults: { timeout: input.timeout } });
  const generate = (server, tls, token) => report.outcome(client(server, tls, token).generate(input.prompt));
  const readConfig = (server, tls, token) =>
    report.outcome(
      client(server, tls, token)
        .getConfig()
        .then(({ config }) => Object.keys(config).length > 0),
    );
  return {
    tls: await generate("tls", { rootCertificates }),
    mtls: await generate("mtls", { rootCertificates, ...certificate }),
    token: await generate("tokens", { rootCertificates }, servers.user_token),
    admin: await readConfig("tokens", { rootCertificates }, servers.admin_token),
    unix: await generate("unix"),
    distrusted: await generate("tls", { rootCertificates: otherRootCertificates }),
    without_certificate: await generate("mtls", { rootCertificates }),
    no_token: await generate("tokens", { rootCertificates }),
    wrong_token: await generate("tokens", { rootCertificates }, input.wrong_token),
    role: await readConfig("tokens", { rootCertificates }, servers.user_token),
    certificate_role: await readConfig("mtls", { rootCertificates, ...certificate }),
  };
}
