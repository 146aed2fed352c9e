package interop;

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import io.abstractllm.RemoteLLM;
import io.abstractllm.RemoteLLMBuilder;
import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** The task of a behaviour: its input, the servers, and the suite. */
public final class Task {
    private final JsonObject input;
    private final JsonObject servers;
    private final Suite suite;

    /**
     * Reads a task.
     *
     * @param message the suite's message
     * @param suite the suite, which answers questions
     */
    public Task(JsonObject message, Suite suite) {
        this.input = message.getAsJsonObject("input");
        this.servers = message.getAsJsonObject("servers");
        this.suite = suite;
    }

    /**
     * A client of the server {@code plain}.
     *
     * @param llm the LLM's name
     * @return the client
     */
    public RemoteLLM connect(String llm) {
        return connectTo("plain").llm(llm).build();
    }

    /**
     * A client of one of the servers.
     *
     * @param name the server's name
     * @return a builder
     */
    public RemoteLLMBuilder connectTo(String name) {
        return RemoteLLM.builder(server(name));
    }

    /**
     * An address, a file or a token.
     *
     * @param name its name
     * @return the value
     */
    public String server(String name) {
        return servers.get(name).getAsString();
    }

    /**
     * A value of the case's input.
     *
     * @param name its name
     * @return the value
     */
    public JsonElement get(String name) {
        return input.get(name);
    }

    /**
     * A text of the case's input.
     *
     * @param name its name
     * @return the text
     */
    public String text(String name) {
        return get(name).getAsString();
    }

    /**
     * A number of the case's input.
     *
     * @param name its name
     * @return the number
     */
    public double number(String name) {
        return get(name).getAsDouble();
    }

    /**
     * A whole number of the case's input.
     *
     * @param name its name
     * @return the number
     */
    public int whole(String name) {
        return get(name).getAsInt();
    }

    /**
     * The texts of a list in the case's input.
     *
     * @param name its name
     * @return the texts
     */
    public List<String> texts(String name) {
        return get(name).getAsJsonArray().asList().stream()
                .map(JsonElement::getAsString)
                .toList();
    }

    /**
     * A value of the case's input, as Java's maps, lists and numbers.
     *
     * @param name its name
     * @return the value
     */
    public Object plain(String name) {
        return new Gson().fromJson(get(name), Object.class);
    }

    /**
     * Asks the suite for an action, and waits for its answer.
     *
     * @param action the name of the action
     * @param facts the action's arguments
     * @return its answer
     * @throws IOException if it is gone
     */
    public JsonElement ask(String action, Map<String, ?> facts) throws IOException {
        Map<String, Object> question = new HashMap<>(facts);
        question.put("do", action);
        return suite.ask(question);
    }
}
