package load;

import static interop.Report.all;
import static interop.Report.map;

import interop.Behaviour;
import interop.Report;
import interop.Task;
import io.abstractllm.LlmInfo;
import io.abstractllm.LoadProgress;
import io.abstractllm.Options;
import io.abstractllm.RemoteLLM;
import io.abstractllm.UnloadProgress;
import java.util.List;
import java.util.Map;

/** A model is loaded and unloaded with progress, and not while it is in use. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) throws Exception {
        Options exactly = Options.builder().temperature(0).build();
        Options endless = Options.builder()
                .logitBias(Map.of(4, -100.0))
                .maxTokens(2000)
                .build();
        try (var llm = task.connectTo("plain")
                        .llm(task.text("llm"))
                        .defaults(exactly)
                        .build();
                var echo = task.connect("echo")) {
            List<LoadProgress> reports = all(llm.loadModel());
            String ready = stateOf(llm);
            String answer = llm.generate("What is the capital of France?");
            Object inUse;
            try (var stream = llm.stream(task.text("prompt"), endless)) {
                stream.iterator().next();
                inUse = Report.outcome(() -> all(llm.unloadModel(false)).size());
            }
            List<UnloadProgress> unloading = all(llm.unloadModel(true));
            return map(
                    "loading",
                            map(
                                    "states",
                                            reports.stream()
                                                    .map(report ->
                                                            report.state().toString())
                                                    .distinct()
                                                    .sorted()
                                                    .toList(),
                                    "fractions_are_fractions",
                                            reports.stream()
                                                    .mapToDouble(report ->
                                                            report.fraction().orElse(0))
                                                    .allMatch(fraction -> fraction >= 0 && fraction <= 1)),
                    "ready", ready,
                    "answer", answer,
                    "in_use", inUse,
                    "unloading", unloading.get(unloading.size() - 1).state().toString(),
                    "after", stateOf(llm),
                    "unsupported",
                            Report.outcome(() -> all(echo.unloadModel(false)).size()));
        }
    }

    private static String stateOf(RemoteLLM llm) {
        List<LlmInfo> matches = llm.listLlms().stream()
                .filter(info -> info.name().equals(llm.llm()))
                .toList();
        return matches.get(0).state().toString();
    }
}
