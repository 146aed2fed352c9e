package retry;

import static interop.Report.map;

import com.google.gson.JsonObject;
import interop.Behaviour;
import interop.Report;
import interop.Task;
import io.abstractllm.AbstractLLMException;
import io.abstractllm.Options;
import io.abstractllm.RemoteLLM;
import java.time.Duration;
import java.util.List;
import java.util.Map;

/** Calls are tried again when and as often as the server says, also a large one, and over a restart of the server. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) throws Exception {
        Options patient = Options.builder().timeout(Duration.ofSeconds(60)).build();
        Map<String, Object> report;
        try (var llm = task.connectTo("plain").llm("flaky").defaults(patient).build()) {
            JsonObject large = task.get("overloaded").deepCopy().getAsJsonObject();
            large.addProperty("padding", "x".repeat(task.whole("padding")));
            report = map(
                    "overloaded",
                            answer(llm, "overloaded", task.get("overloaded").toString()),
                    "unavailable",
                            Report.all(llm.streamText(task.get("unavailable").toString(), named("unavailable"))),
                    "always", answer(llm, "always", task.get("always").toString()),
                    "quota", answer(llm, "quota", task.get("quota").toString()),
                    "invalid", answer(llm, "invalid", task.get("invalid").toString()),
                    "large", answer(llm, "large", large.toString()));
        }
        try (var llm = task.connectTo("restarted").defaults(patient).build()) {
            String before = llm.generate("before");
            task.ask("restart", Map.of("seconds", task.number("down")));
            report.put("restarted", List.of(before, llm.generate("after")));
        }
        return report;
    }

    private static Options named(String name) {
        return Options.builder().requestId(name).build();
    }

    private static String answer(RemoteLLM llm, String name, String wanted) {
        try {
            return llm.generate(wanted, named(name));
        } catch (AbstractLLMException error) {
            return error.reason().name();
        }
    }
}
