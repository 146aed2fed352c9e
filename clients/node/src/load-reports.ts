import { createRequire } from "node:module";

const FILE = "xds/service/orca/v3/orca.proto";

interface ProtoLoader {
  loadSync: (file: string | string[], options?: object) => object;
}

let isCached = false;

/**
 * Keeps the message type of servers' load reports once it is read.
 *
 * grpc-js (1.14) means to, and yet reads and parses the files that define it anew for each report: some 40 ms of
 * the event loop at the end of every call, where calls are spread by weights.
 */
export function cacheLoadReportType(): void {
  if (isCached) return;
  isCached = true;
  try {
    const { resolve } = createRequire(import.meta.url);
    const loader: ProtoLoader = createRequire(resolve("@grpc/grpc-js"))("@grpc/proto-loader");
    const { loadSync } = loader;
    let definition: object | undefined;
    loader.loadSync = (file, options) => {
      if (file !== FILE) return loadSync(file, options);
      definition ??= loadSync(file, options);
      return definition;
    };
  } catch {
    // Bundled programs have no packages to look into: there it stays slow.
  }
}
