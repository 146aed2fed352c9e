package parameters;

import static interop.Report.map;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import interop.Behaviour;
import interop.Task;
import io.abstractllm.Options;
import io.abstractllm.ParametersPolicy;
import io.abstractllm.ReasoningEffort;
import io.abstractllm.TokenLogprob;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Every parameter arrives with its value, zero too, and an absent one stays absent. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        Options common = Options.builder().temperature(0.5).topK(3).build();
        Options brief = Options.builder().temperature(0).maxTokens(2).build();
        try (var llm = task.connect("mirror");
                var withDefaults =
                        task.connectTo("plain").llm("mirror").defaults(common).build();
                var local = task.connectTo("plain").llm("local").defaults(brief).build()) {
            var dropping = local.complete(
                    "hi",
                    Options.builder()
                            .reasoningEffort(ReasoningEffort.HIGH)
                            .parametersPolicy(ParametersPolicy.DROP_UNSUPPORTED)
                            .build());
            List<TokenLogprob> logprobs = local.complete(
                            "hi", Options.builder().topLogprobs(2).build())
                    .logprobs();
            return map(
                    "none", kept(llm.generate("hi")),
                    "all", kept(llm.generate("hi", all(task))),
                    "client", json(withDefaults.generate("hi")).get("parameters"),
                    "call",
                            json(withDefaults.generate(
                                            "hi",
                                            Options.builder().temperature(0).build()))
                                    .get("parameters"),
                    "logprobs",
                            map(
                                    "tokens",
                                            logprobs.stream()
                                                    .map(TokenLogprob::token)
                                                    .toList(),
                                    "alternatives",
                                            logprobs.stream()
                                                    .map(one -> one.top().size())
                                                    .toList()),
                    "dropped", dropping.droppedParameters());
        }
    }

    private static Options all(Task task) {
        JsonObject values = task.get("all").getAsJsonObject();
        Map<Integer, Double> bias = new HashMap<>();
        values.getAsJsonObject("logit_bias")
                .asMap()
                .forEach((token, value) -> bias.put(Integer.valueOf(token), value.getAsDouble()));
        Map<String, String> labels = new HashMap<>();
        task.get("labels").getAsJsonObject().asMap().forEach((name, value) -> labels.put(name, value.getAsString()));
        String effort = values.get("reasoning_effort").getAsString().toUpperCase(Locale.ROOT);
        return Options.builder()
                .temperature(values.get("temperature").getAsDouble())
                .topP(values.get("top_p").getAsDouble())
                .topK(values.get("top_k").getAsInt())
                .minP(values.get("min_p").getAsDouble())
                .maxTokens(values.get("max_tokens").getAsInt())
                .seed(values.get("seed").getAsLong())
                .presencePenalty(values.get("presence_penalty").getAsDouble())
                .frequencyPenalty(values.get("frequency_penalty").getAsDouble())
                .repetitionPenalty(values.get("repetition_penalty").getAsDouble())
                .stop(values.getAsJsonArray("stop").asList().stream()
                        .map(JsonElement::getAsString)
                        .toList())
                .logitBias(bias)
                .topLogprobs(values.get("top_logprobs").getAsInt())
                .reasoningEffort(ReasoningEffort.valueOf(effort))
                .requestId(task.text("request_id"))
                .labels(labels)
                .timeout(Duration.ofSeconds(60))
                .build();
    }

    private static Map<String, Object> kept(String answer) {
        JsonObject arrived = json(answer);
        Map<String, Object> report = map();
        for (String name : List.of("parameters", "request_id", "labels", "has_timeout")) {
            report.put(name, arrived.get(name));
        }
        return report;
    }

    private static JsonObject json(String answer) {
        return JsonParser.parseString(answer).getAsJsonObject();
    }
}
