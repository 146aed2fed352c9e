"""Asks a server's health service whether it is alive: `python healthcheck.py ADDRESS`, exit code 0 if it is.

Alive is the service `liveness`, not readiness: a container whose model still loads is not to be restarted.
"""

import sys

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

TIMEOUT_SECONDS = 4.0


def main(address: str) -> None:
    """Exits with a message unless the server at `address` (host:port) says SERVING within four seconds."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = HealthStub(channel).Check(
                HealthCheckRequest(service="liveness"), timeout=TIMEOUT_SECONDS, wait_for_ready=True
            )
        except grpc.RpcError as error:
            sys.exit(f"{address}: {error.code().name}: {error.details()}")
    if answer.status != HealthCheckResponse.SERVING:
        sys.exit(f"{address}: {HealthCheckResponse.ServingStatus.Name(answer.status)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python healthcheck.py HOST:PORT")
    main(sys.argv[1])
