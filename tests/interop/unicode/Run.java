package unicode;

import static interop.Report.joined;
import static interop.Report.map;

import com.google.gson.JsonElement;
import com.google.gson.JsonParser;
import interop.Behaviour;
import interop.Task;
import io.abstractllm.ChatMessage;
import io.abstractllm.Options;
import java.util.List;

/** Text of every kind comes back as it was sent, whole and as it comes. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        try (var echo = task.connect("echo");
                var mirror = task.connect("mirror")) {
            return task.texts("texts").stream()
                    .map(text -> map(
                            "whole", echo.generate(text),
                            "joined", joined(echo.streamText(text)),
                            "chat", echo.generate(List.of(ChatMessage.user(text)), Options.NONE),
                            "system",
                                    systemPart(mirror.generate(
                                            "hi",
                                            Options.builder().systemPrompt(text).build()))))
                    .toList();
        }
    }

    private static JsonElement systemPart(String answer) {
        return JsonParser.parseString(answer)
                .getAsJsonObject()
                .getAsJsonArray("messages")
                .get(0)
                .getAsJsonObject()
                .getAsJsonArray("parts")
                .get(0)
                .getAsJsonObject()
                .get("text");
    }
}
