package errors;

import static interop.Report.map;

import interop.Behaviour;
import interop.Report;
import interop.Task;
import io.abstractllm.AbstractLLMException;
import io.abstractllm.Options;
import io.abstractllm.RemoteLLM;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Every reason is an error of its own class with its facts; a stream that breaks keeps the text that came. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        Options named = Options.builder().requestId(task.text("request_id")).build();
        try (var llm = task.connectTo("plain").llm("echo").defaults(named).build();
                var nobody =
                        task.connectTo("plain").llm("nobody").defaults(named).build()) {
            return map(
                    "whole",
                            task.texts("reasons").stream()
                                    .map(reason -> errorOf(llm, script(List.of(failing(task, reason)))))
                                    .toList(),
                    "broken", broken(task, llm),
                    "temperature", errorOf(llm, Options.builder().temperature(5).build()),
                    "nobody", errorOf(nobody, Options.NONE),
                    "option",
                            errorOf(
                                    llm,
                                    Options.builder()
                                            .providerOptions(Map.of("unheard_of", 1))
                                            .build()));
        }
    }

    private static Map<String, Object> failing(Task task, String reason) {
        Map<String, Object> step = new HashMap<>(
                Map.of("error", reason, "message", "synthetic", "upstream_status", task.whole("upstream_status")));
        if (task.texts("retryable").contains(reason)) {
            step.put("retry_after", task.number("retry_after"));
        }
        return step;
    }

    private static Options script(List<?> steps) {
        return Options.builder().providerOptions(Map.of("script", steps)).build();
    }

    private static Map<String, Object> broken(Task task, RemoteLLM llm) {
        Options script = script(List.of(
                Map.of("text", task.text("before")),
                Map.of("error", "PROVIDER_UNAVAILABLE", "upstream_status", task.whole("upstream_status"))));
        List<Object> types = new ArrayList<>();
        try (var events = llm.stream("hi", script)) {
            events.forEach(event -> types.add(Report.event(event).get("type")));
        } catch (AbstractLLMException error) {
            return map("events", types, "error", Report.error(error));
        }
        return map("events", types, "error", null);
    }

    private static Object errorOf(RemoteLLM llm, Options options) {
        try {
            return llm.generate("hi", options);
        } catch (AbstractLLMException error) {
            return Report.error(error);
        }
    }
}
