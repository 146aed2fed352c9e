package parameters;

import static interop.Report.map;

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import com.google.gson.reflect.TypeToken;
import interop.Behaviour;
import interop.Task;
import io.abstractllm.Options;
import io.abstractllm.ParametersPolicy;
import io.abstractllm.ReasoningEffort;
import io.abstractllm.TokenLogprob;
import java.lang.reflect.Method;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Pattern;

/** Every parameter arrives with its value, zero too, and an absent one stays absent. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) throws Exception {
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

    private static Options all(Task task) throws ReflectiveOperationException {
        Options.Builder options = Options.builder();
        for (var value : task.get("all").getAsJsonObject().entrySet()) {
            set(options, value.getKey(), value.getValue());
        }
        Map<String, String> labels = new HashMap<>();
        task.get("labels").getAsJsonObject().asMap().forEach((name, value) -> labels.put(name, value.getAsString()));
        return options.requestId(task.text("request_id"))
                .labels(labels)
                .timeout(Duration.ofSeconds(60))
                .build();
    }

    /** Sets an option by the contract's name of its parameter. */
    private static void set(Options.Builder options, String name, JsonElement value)
            throws ReflectiveOperationException {
        String camelCase = Pattern.compile("_([a-z])").matcher(name).replaceAll(match -> match.group(1)
                .toUpperCase(Locale.ROOT));
        Method setter = Arrays.stream(Options.Builder.class.getMethods())
                .filter(method -> method.getName().equals(camelCase))
                .findAny()
                .orElseThrow();
        Class<?> type = setter.getParameterTypes()[0];
        JsonElement argument =
                type.isEnum() ? new JsonPrimitive(value.getAsString().toUpperCase(Locale.ROOT)) : value;
        Object converted = type == Map.class
                ? new Gson().fromJson(argument, new TypeToken<Map<Integer, Double>>() {})
                : new Gson().fromJson(argument, type);
        setter.invoke(options, converted);
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
