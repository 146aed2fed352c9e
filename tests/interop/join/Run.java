package join;

import static interop.Report.joined;
import static interop.Report.map;

import interop.Behaviour;
import interop.Task;
import io.abstractllm.Options;

/** The pieces of a real model's answer, joined, are the whole answer. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        Options exactly = Options.builder().temperature(0).build();
        try (var llm =
                task.connectTo("plain").llm(task.text("llm")).defaults(exactly).build()) {
            return task.texts("prompts").stream()
                    .map(prompt -> map("joined", joined(llm.streamText(prompt)), "whole", llm.generate(prompt)))
                    .toList();
        }
    }
}
