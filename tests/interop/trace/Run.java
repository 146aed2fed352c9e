package trace;

import static interop.Report.map;

import interop.Behaviour;
import interop.Task;
import io.abstractllm.Options;
import java.util.Map;

/** A caller's W3C trace context travels with its call, as do the metadata it adds. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) throws Exception {
        Map<String, String> metadata = Map.of(
                "traceparent", task.text("traceparent"),
                "tracestate", task.text("tracestate"),
                "x-other", task.text("other"));
        // The function is asked at each call, as a tracer's context differs from call to call.
        Options options = Options.builder().metadata(() -> metadata).build();
        try (var llm = task.connectTo("recorder").defaults(options).build()) {
            String answer = llm.generate("hi");
            return map("answer", answer, "arrived", task.ask("metadata", Map.of("names", metadata.keySet())));
        }
    }
}
