package leave;

import static interop.Report.map;

import com.google.gson.JsonElement;
import interop.Behaviour;
import interop.Task;
import io.abstractllm.Options;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** An answer of the local engine that is left early frees the engine within two batches. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) throws Exception {
        Map<Integer, Double> bias = new HashMap<>();
        task.get("logit_bias")
                .getAsJsonObject()
                .asMap()
                .forEach((token, value) -> bias.put(Integer.valueOf(token), value.getAsDouble()));
        Options endless = Options.builder()
                .temperature(0)
                .maxTokens(task.whole("max_tokens"))
                .logitBias(bias)
                .build();
        List<Map<String, JsonElement>> left = new ArrayList<>();
        try (var llm =
                task.connectTo("plain").llm(task.text("llm")).defaults(endless).build()) {
            for (int time = 0; time < task.whole("times"); time++) {
                try (var stream = llm.streamText(task.text("prompt"))) {
                    var pieces = stream.iterator();
                    for (int piece = 0; piece < task.whole("pieces"); piece++) {
                        pieces.next();
                    }
                }
                Map<String, JsonElement> outcome = new HashMap<>(
                        task.ask("steps_until_idle", Map.of()).getAsJsonObject().asMap());
                outcome.put("pieces", task.get("pieces"));
                left.add(outcome);
            }
        }
        return map("left", left);
    }
}
