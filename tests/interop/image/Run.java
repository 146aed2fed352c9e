package image;

import com.google.gson.JsonParser;
import interop.Behaviour;
import interop.Task;
import io.abstractllm.ChatMessage;
import io.abstractllm.Options;
import io.abstractllm.Part;
import java.util.List;

/** The bytes of an image arrive as they were sent. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        int cycle = task.whole("byte_cycle");
        byte[] data = new byte[cycle * task.whole("times")];
        for (int at = 0; at < data.length; at++) {
            data[at] = (byte) (at % cycle);
        }
        var question =
                ChatMessage.user(new Part.Text(task.text("prompt")), new Part.Image(data, task.text("mime_type")));
        try (var llm = task.connect("mirror")) {
            String answer = llm.generate(List.of(question), Options.NONE);
            return JsonParser.parseString(answer)
                    .getAsJsonObject()
                    .getAsJsonArray("messages")
                    .get(0);
        }
    }
}
