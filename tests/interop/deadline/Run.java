package deadline;

import static interop.Report.map;

import interop.Behaviour;
import interop.Report;
import interop.Task;
import io.abstractllm.AbstractLLMException;
import io.abstractllm.Options;
import java.time.Duration;
import java.util.Map;

/** A deadline ends the call with a typed error and what had come, and the server stops working for it. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        Options slow = Options.builder()
                .providerOptions(Map.of("delay", task.number("delay"), "reply", "word ".repeat(task.whole("words"))))
                .timeout(Duration.ofMillis((long) (task.number("timeout") * 1000)))
                .build();
        Map<String, Object> found = map();
        try (var llm =
                task.connectTo("plain").llm(task.text("llm")).defaults(slow).build()) {
            try {
                llm.generate("hi");
            } catch (AbstractLLMException error) {
                found.put("whole", brief(error));
            }
            StringBuilder came = new StringBuilder();
            try (var pieces = llm.streamText("hi")) {
                pieces.forEach(came::append);
            } catch (AbstractLLMException error) {
                Map<String, Object> told = brief(error);
                told.put("partial_is_what_came", error.partialText().contentEquals(came));
                told.put("something_came", !came.isEmpty());
                found.put("streamed", told);
            }
        }
        return found;
    }

    private static Map<String, Object> brief(AbstractLLMException error) {
        Map<String, Object> told = Report.shortError(error);
        told.put("retryable", error.retryable());
        return told;
    }
}
