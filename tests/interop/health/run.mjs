export async function run({ input, connect, require }) {
  const { credentials, makeGenericClientConstructor, status } = require("@grpc/grpc-js");
  const Health = makeGenericClientConstructor(require("grpc-health-check").service);
  const health = new Health("", credentials.createInsecure(), { channelOverride: connect().channel });
  const check = (service) =>
    new Promise((resolve) => {
      health.Check({ service }, (error, answer) => resolve(error ? status[error.code] : answer.status));
    });
  return { serving: await Promise.all(input.services.map(check)), unknown: await check(input.unknown) };
}
