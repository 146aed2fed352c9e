package tools;

import static interop.Report.map;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.ByteString;
import interop.Behaviour;
import interop.Report;
import interop.Task;
import io.abstractllm.ChatMessage;
import io.abstractllm.Options;
import io.abstractllm.Part;
import io.abstractllm.Role;
import io.abstractllm.Tool;
import io.abstractllm.ToolChoice;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;

/** Tools go in, calls come out, results go back, opaque state with them. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        String prompt = task.text("prompt");
        JsonObject described = task.get("tool").getAsJsonObject();
        Tool tool = new Tool(
                described.get("name").getAsString(),
                described.get("description").getAsString(),
                described.get("parameters_json_schema").getAsString());
        Options withTool = Options.builder().tools(List.of(tool)).build();
        try (var echo = task.connect("echo");
                var mirror =
                        task.connectTo("plain").llm("mirror").defaults(withTool).build()) {
            var answer = echo.complete(
                    prompt,
                    Options.builder()
                            .tools(List.of(tool))
                            .providerOptions(Map.of("script", task.plain("script")))
                            .build());
            Part.ToolCall call = answer.toolCalls().get(0);
            JsonObject auto = json(mirror.generate(prompt));
            ByteString state = ByteString.copyFrom(HexFormat.of().parseHex(task.text("state")));
            List<ChatMessage> conversation = List.of(
                    ChatMessage.user(prompt),
                    new ChatMessage(Role.ASSISTANT, List.of(new Part.Reasoning(answer.reasoning(), state), call)),
                    ChatMessage.tool(new Part.ToolResult(call.id(), task.text("result"))));
            return map(
                    "call", Report.part(call).get("tool_call"),
                    "finish_reason", answer.finishReason().toString(),
                    "auto", map("tools", auto.get("tools"), "tool_choice", auto.get("tool_choice")),
                    "required",
                            json(mirror.generate(prompt, choosing(ToolChoice.REQUIRED)))
                                    .get("tool_choice"),
                    "named",
                            json(mirror.generate(prompt, choosing(ToolChoice.named(tool.name()))))
                                    .get("tool_choice"),
                    "returned",
                            json(mirror.generate(conversation, Options.NONE)).get("messages"));
        }
    }

    private static Options choosing(ToolChoice choice) {
        return Options.builder().toolChoice(choice).build();
    }

    private static JsonObject json(String answer) {
        return JsonParser.parseString(answer).getAsJsonObject();
    }
}
