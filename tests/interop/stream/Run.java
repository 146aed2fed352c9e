package stream;

import static interop.Report.map;

import interop.Behaviour;
import interop.Report;
import interop.Task;
import io.abstractllm.Options;
import java.util.Map;

/** An answer as it comes: every event, or the text alone. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        String prompt = task.text("prompt");
        Options script = Options.builder()
                .providerOptions(Map.of("script", task.plain("script")))
                .build();
        Options reply = Options.builder()
                .providerOptions(Map.of("reply", task.text("reply")))
                .build();
        try (var llm = task.connect(task.text("llm"));
                var events = llm.stream(prompt, script)) {
            return map(
                    "events", events.stream().map(Report::event).toList(),
                    "texts", Report.all(llm.streamText(prompt, reply)),
                    "whole", Report.completion(llm.complete(prompt, script)));
        }
    }
}
