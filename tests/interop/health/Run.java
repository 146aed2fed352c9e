package health;

import static interop.Report.map;

import interop.Behaviour;
import interop.Task;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.health.v1.HealthGrpc.HealthBlockingStub;

/** The standard health service tells of the server and of each LLM, on the client's own connection. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        try (var llm = task.connect("")) {
            HealthBlockingStub health = HealthGrpc.newBlockingStub(llm.channel());
            return map(
                    "serving",
                    task.texts("services").stream()
                            .map(service -> status(health, service))
                            .toList(),
                    "unknown",
                    status(health, task.text("unknown")));
        }
    }

    private static String status(HealthBlockingStub health, String service) {
        try {
            return health.check(
                            HealthCheckRequest.newBuilder().setService(service).build())
                    .getStatus()
                    .name();
        } catch (StatusRuntimeException error) {
            return error.getStatus().getCode().name();
        }
    }
}
