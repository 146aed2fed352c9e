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
        Map<String, Object> report = map();
        try (var llm =
                task.connectTo("plain").llm(task.text("llm")).defaults(slow).build()) {
            try {
                llm.generate("hi");
            } catch (AbstractLLMException error) {
                report.put("whole", brief(error));
            }
            StringBuilder received = new StringBuilder();
            try (var pieces = llm.streamText("hi")) {
                pieces.forEach(received::append);
            } catch (AbstractLLMException error) {
                Map<String, Object> streamed = brief(error);
                streamed.put("partial_is_what_came", error.partialText().contentEquals(received));
                streamed.put("something_came", !received.isEmpty());
                report.put("streamed", streamed);
            }
        }
        return report;
    }

    private static Map<String, Object> brief(AbstractLLMException error) {
        Map<String, Object> report = Report.shortError(error);
        report.put("retryable", error.retryable());
        return report;
    }
}
