package unary;

import static interop.Report.completion;
import static interop.Report.map;

import interop.Behaviour;
import interop.Task;
import io.abstractllm.Options;

/** A whole answer, as text and with all that comes with it. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        String prompt = task.text("prompt");
        try (var llm = task.connect(task.text("llm"))) {
            var whole = llm.complete(
                    prompt,
                    Options.builder().systemPrompt(task.text("system_prompt")).build());
            var cut = llm.complete(
                    prompt,
                    Options.builder().maxTokens(task.whole("max_tokens")).build());
            var stopped = llm.complete(
                    prompt, Options.builder().stop(task.texts("stop")).build());
            return map(
                    "text", llm.generate(prompt),
                    "whole", completion(whole),
                    "cut",
                            map(
                                    "text",
                                    cut.text(),
                                    "finish_reason",
                                    cut.finishReason().toString()),
                    "stopped",
                            map(
                                    "text", stopped.text(),
                                    "finish_reason", stopped.finishReason().toString(),
                                    "stop_sequence", stopped.stopSequence()),
                    "timing_is_set",
                            whole.timing()
                                    .total()
                                    .filter(time -> time.toNanos() > 0)
                                    .isPresent());
        }
    }
}
