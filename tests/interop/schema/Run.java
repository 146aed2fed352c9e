package schema;

import static interop.Report.map;

import com.google.gson.JsonElement;
import com.google.gson.JsonParser;
import interop.Behaviour;
import interop.Task;
import io.abstractllm.Options;
import io.abstractllm.RemoteLLM;
import io.abstractllm.ResponseFormat;

/** Every kind of answer format arrives, and binds a real model. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        String prompt = task.text("prompt");
        String name = task.text("name");
        ResponseFormat regex = ResponseFormat.regex(task.text("regex"));
        ResponseFormat grammar = ResponseFormat.grammar(task.text("grammar"));
        ResponseFormat schema = ResponseFormat.jsonSchema(task.get("schema").toString(), name);
        Options brief = Options.builder().temperature(0).maxTokens(50).build();
        try (var mirror = task.connect("mirror");
                var local = task.connectTo("plain").llm("local").defaults(brief).build()) {
            return map(
                    "json_object", arrived(mirror, prompt, ResponseFormat.jsonObject()),
                    "json_schema", arrived(mirror, prompt, ResponseFormat.jsonSchema("{}", name, true)),
                    "regex", arrived(mirror, prompt, regex),
                    "grammar", arrived(mirror, prompt, grammar),
                    "real",
                            map(
                                    "object", JsonParser.parseString(local.generate(prompt, held(schema))),
                                    "digits", local.generate(prompt, held(regex)),
                                    "word", local.generate(prompt, held(grammar))));
        }
    }

    private static JsonElement arrived(RemoteLLM mirror, String prompt, ResponseFormat format) {
        return JsonParser.parseString(mirror.generate(prompt, held(format)))
                .getAsJsonObject()
                .get("response_format");
    }

    private static Options held(ResponseFormat format) {
        return Options.builder().responseFormat(format).build();
    }
}
