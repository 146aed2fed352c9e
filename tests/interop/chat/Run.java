package chat;

import static interop.Report.map;

import com.google.gson.JsonElement;
import com.google.gson.JsonParser;
import interop.Behaviour;
import interop.Task;
import io.abstractllm.ChatMessage;
import io.abstractllm.Options;
import java.util.List;

/** A conversation with every role; a system prompt replaces the conversation's own. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        List<ChatMessage> messages = List.of(
                ChatMessage.system(task.text("system")),
                ChatMessage.user(task.text("user")),
                ChatMessage.assistant(task.text("assistant")),
                ChatMessage.user(task.text("then")));
        Options replaced =
                Options.builder().systemPrompt(task.text("system_prompt")).build();
        Options removed = Options.builder().systemPrompt("").build();
        try (var llm = task.connect(task.text("llm"));
                var local = task.connect("local")) {
            return map(
                    "plain", arrived(llm.generate(messages, Options.NONE)),
                    "replaced", arrived(llm.generate(messages, replaced)),
                    "removed", arrived(llm.generate(messages, removed)),
                    "answer",
                            local.generate(
                                    List.of(ChatMessage.user(task.text("question"))),
                                    Options.builder().temperature(0).build()));
        }
    }

    private static JsonElement arrived(String answer) {
        return JsonParser.parseString(answer).getAsJsonObject().get("messages");
    }
}
