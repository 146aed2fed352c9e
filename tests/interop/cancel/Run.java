package cancel;

import static interop.Report.map;

import interop.Behaviour;
import interop.Report;
import interop.Task;
import io.abstractllm.Event;
import io.abstractllm.Options;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** A call that its caller cancels ends with a typed error, wherever it is, and leaves nothing at the server. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) throws Exception {
        Options slow = Options.builder()
                .providerOptions(Map.of("delay", task.number("delay"), "reply", "word ".repeat(task.whole("words"))))
                .build();
        try (var llm = task.connect(task.text("llm"))) {
            // Before its first event is asked for: nothing is sent.
            llm.stream("never sent", slow).close();

            Object first;
            try (var events = llm.stream("after the first event", slow)) {
                first = Report.event(events.iterator().next()).get("type");
            }

            int midway = 0;
            try (var events = llm.stream("in the middle", slow)) {
                for (Event event : events) {
                    Report.event(event);
                    if (++midway == task.whole("after_more_events")) {
                        break;
                    }
                }
            }

            // While a call waits for its answer, from another thread: the client is closed.
            CompletableFuture.delayedExecutor(300, TimeUnit.MILLISECONDS).execute(llm::close);
            Object error = Report.outcome(() -> llm.generate("whole", slow));
            return map("first", List.of(first), "midway", midway, "error", error);
        }
    }
}
