import { readFileSync } from "node:fs";

export async function run({ input, servers, connect, report }) {
  const rootCertificates = readFileSync(servers.root_certificates);
  const others = readFileSync(servers.other_root_certificates);
  const certificate = {
    certificateChain: readFileSync(servers.client_certificate),
    privateKey: readFileSync(servers.client_key),
  };
  const client = (server, tls, token) => connect("", { server, tls, token, defaults: { timeout: input.timeout } });
  const ask = (server, tls, token) => report.outcome(client(server, tls, token).generate(input.prompt));
  const configure = (server, tls, token) =>
    report.outcome(
      client(server, tls, token)
        .getConfig()
        .then(({ config }) => Object.keys(config).length > 0),
    );
  return {
    tls: await ask("tls", { rootCertificates }),
    mtls: await ask("mtls", { rootCertificates, ...certificate }),
    token: await ask("tokens", { rootCertificates }, servers.user_token),
    admin: await configure("tokens", { rootCertificates }, servers.admin_token),
    unix: await ask("unix"),
    distrusted: await ask("tls", { rootCertificates: others }),
    without_certificate: await ask("mtls", { rootCertificates }),
    no_token: await ask("tokens", { rootCertificates }),
    wrong_token: await ask("tokens", { rootCertificates }, input.wrong_token),
    role: await configure("tokens", { rootCertificates }, servers.user_token),
    certificate_role: await configure("mtls", { rootCertificates, ...certificate }),
  };
}
