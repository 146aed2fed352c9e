import com.google.gson.Gson;
import io.abstractllm.ChatMessage;
import io.abstractllm.Completion;
import io.abstractllm.Options;
import io.abstractllm.Part;
import io.abstractllm.RemoteLLM;
import io.abstractllm.Tool;
import java.util.ArrayList;
import java.util.List;

/**
 * Lets a model call a function of this program, and answer with what it returned: ChatWithTools.java [HOST:PORT] [LLM].
 *
 * <p>The LLM must take tools: a hosted one, or a local model whose chat template has a place for them.
 */
class ChatWithTools {
    private static final Tool WEATHER = new Tool(
            "weather",
            "Tells the weather in a city",
            """
            {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
            """);

    record Place(String city) {}

    /** The function that the model can ask for. */
    private static String weather(Place place) {
        return "It is sunny in " + place.city() + ".";
    }

    public static void main(String[] args) {
        String address = args.length > 0 ? args[0] : "127.0.0.1:50051";
        Options withTools = Options.builder().tools(List.of(WEATHER)).build();
        List<ChatMessage> messages = new ArrayList<>(List.of(ChatMessage.user("What is the weather in Paris?")));
        try (var llm = new RemoteLLM(address, args.length > 1 ? args[1] : "")) {
            Completion answer = llm.complete(messages, withTools);
            while (!answer.toolCalls().isEmpty()) {
                messages.add(answer.message());
                for (Part.ToolCall call : answer.toolCalls()) {
                    System.out.println("calls " + call.name() + " with " + call.argumentsJson());
                    String result = weather(new Gson().fromJson(call.argumentsJson(), Place.class));
                    messages.add(ChatMessage.tool(new Part.ToolResult(call.id(), result)));
                }
                answer = llm.complete(messages, withTools);
            }
            System.out.println(answer.text());
        }
    }
}
