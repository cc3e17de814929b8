"""Publishes one message over gRPC: publish.py ROOM JSON [IDEMPOTENCY-KEY].

From the environment: ADDR, where the node listens for backends (dns:///realtime:9090 for all nodes behind a headless service),
and KEY, what to call with. The modules of realtime.v1 are made of the protos:

    protoc -I proto --python_out=. --grpc_python_out=. --plugin=protoc-gen-grpc_python=$(command -v grpc_python_plugin) \
        realtime/v1/types.proto realtime/v1/publisher.proto
"""

import json
import os
import sys
import uuid

import grpc
from realtime.v1 import publisher_pb2, publisher_pb2_grpc, types_pb2

# With an idempotency key a repeat is not published again, so every call may be repeated.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "realtime.v1.PublisherService", "method": "Publish"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ],
}


def main(room, data, idempotency_key=None):
    address = os.environ.get("ADDR", "127.0.0.1:9090")
    options = [("grpc.service_config", json.dumps(SERVICE_CONFIG))]
    # With TLS: grpc.secure_channel. One channel serves a whole program.
    with grpc.insecure_channel(address, options) as channel:
        publisher = publisher_pb2_grpc.PublisherServiceStub(channel)
        try:
            answer = publisher.Publish(
                publisher_pb2.PublishRequest(
                    room=room,
                    message=types_pb2.MessageContent(type="chat", data=data),
                    idempotency_key=idempotency_key or str(uuid.uuid4()),  # better: the id of what happened
                ),
                timeout=5,
                metadata=[("authorization", "Bearer " + os.environ.get("KEY", ""))],
            )
        except grpc.RpcError as e:
            sys.exit(f"{e.code().name}: {e.details()}")
    print(answer.receipt.id, str(answer.receipt.duplicate).lower())


main(*sys.argv[1:])
