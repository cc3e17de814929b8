// Publishes one message over gRPC: node publish.js ROOM JSON [IDEMPOTENCY-KEY].
//
// From the environment: ADDR, where the node listens for backends (dns:///realtime:9090 for all nodes behind a headless
// service), KEY, what to call with, and PROTO, the directory of the protos.
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const { ADDR = "127.0.0.1:9090", KEY = "", PROTO = fileURLToPath(new URL("../../../proto", import.meta.url)) } = process.env;
const [room, data, idempotencyKey = randomUUID()] = process.argv.slice(2); // better: the id of what happened

const definition = loader.loadSync("realtime/v1/publisher.proto", { includeDirs: [PROTO], enums: String });
const { PublisherService } = grpc.loadPackageDefinition(definition).realtime.v1;

// With an idempotency key a repeat is not published again, so every call may be repeated.
const serviceConfig = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: "realtime.v1.PublisherService", method: "Publish" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
};

// With TLS: grpc.credentials.createSsl(). One of these serves a whole program.
const publisher = new PublisherService(ADDR, grpc.credentials.createInsecure(), { "grpc.service_config": JSON.stringify(serviceConfig) });
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${KEY}`);

const request = { room, idempotencyKey, message: { type: "chat", data } };
publisher.publish(request, metadata, { deadline: Date.now() + 5000 }, (err, answer) => {
  if (err) {
    console.error(`${grpc.status[err.code]}: ${err.details}`);
    process.exitCode = 1;
  } else {
    console.log(answer.receipt.id, Boolean(answer.receipt.duplicate));
  }
  publisher.close();
});
