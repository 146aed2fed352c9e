package growth;

import static interop.Report.map;

import interop.Behaviour;
import interop.Report;
import interop.Task;
import io.abstractllm.Options;

/** The additions of a newer server do no harm: unknown events and parts are skipped, unknown words passed through. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        try (var llm = task.connectTo("recorder").build();
                var events = llm.stream("hi", Options.NONE)) {
            var whole = llm.complete("hi", Options.NONE);
            return map(
                    "events", events.stream().map(Report::event).toList(),
                    "joined", Report.joined(llm.streamText("hi")),
                    "whole",
                            map(
                                    "text", whole.text(),
                                    "finish_reason", Report.finishReason(whole.finishReason()),
                                    "parts", Report.message(whole.message()).get("parts")));
        }
    }
}
