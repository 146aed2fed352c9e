package large;

import static interop.Report.map;

import com.google.gson.JsonParser;
import com.google.protobuf.ByteString;
import interop.Behaviour;
import interop.Report;
import interop.Task;
import io.abstractllm.AbstractLLMException;
import io.abstractllm.RemoteLLM;

/** A prompt of 8 MiB arrives, an answer of 4 MiB comes back; beyond the limit of 16 MiB either is refused by name. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        String letter = task.text("letter");
        String prompt = letter.repeat(task.whole("prompt_bytes"));
        try (var mirror = task.connect("mirror");
                var echo = task.connect("echo")) {
            var arrived = JsonParser.parseString(mirror.generate(prompt))
                    .getAsJsonObject()
                    .getAsJsonArray("messages")
                    .get(0)
                    .getAsJsonObject()
                    .getAsJsonArray("parts")
                    .get(0)
                    .getAsJsonObject()
                    .get("text");
            String answer = echo.generate(letter.repeat(task.whole("answer_bytes")));
            return map(
                    "arrived", arrived,
                    "came_back", Report.summary(ByteString.copyFromUtf8(answer)),
                    "streamed", Report.joined(echo.streamText(prompt)).length(),
                    "request_refused", refusal(echo, letter.repeat(task.whole("too_many_bytes"))),
                    "answer_refused", refusal(echo, prompt));
        }
    }

    private static Object refusal(RemoteLLM llm, String prompt) {
        try {
            return llm.generate(prompt);
        } catch (AbstractLLMException error) {
            return Report.error(error);
        }
    }
}
