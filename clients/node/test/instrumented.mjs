/** The preloaded module of a program with OpenTelemetry: `node --import ./instrumented.mjs`. */

import { register } from "node:module";

register("@opentelemetry/instrumentation/hook.mjs", import.meta.url);
const { registerInstrumentations } = await import("@opentelemetry/instrumentation");
const { GrpcInstrumentation } = await import("@opentelemetry/instrumentation-grpc");
const { NodeTracerProvider } = await import("@opentelemetry/sdk-trace-node");
new NodeTracerProvider().register();
registerInstrumentations({ instrumentations: [new GrpcInstrumentation()] });
