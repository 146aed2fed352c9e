import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    with task.connect() as llm:
        health = health_pb2_grpc.HealthStub(llm.channel)

        def status(service: str) -> str:
            try:
                answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            except grpc.RpcError as error:
                return str(error.code().name)  # type: ignore[attr-defined]
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

        return {
            "serving": [status(service) for service in task.input["services"]],
            "unknown": status(task.input["unknown"]),
        }
