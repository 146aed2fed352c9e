package interop;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** The suite at the other end of the runner's standard input and output: a JSON object a line. */
public final class Suite {
    private static final Gson JSON =
            new GsonBuilder().serializeNulls().disableHtmlEscaping().create();

    private final BufferedReader input;
    private final PrintStream output;

    /**
     * Makes the connection to the suite.
     *
     * @param input the suite's output
     * @param output the suite's input
     */
    public Suite(InputStream input, OutputStream output) {
        this.input = new BufferedReader(new InputStreamReader(input, StandardCharsets.UTF_8));
        this.output = new PrintStream(output, true, StandardCharsets.UTF_8);
    }

    /**
     * Reads one line.
     *
     * @return the line; null at the end
     * @throws IOException if it cannot be read
     */
    public String read() throws IOException {
        return input.readLine();
    }

    /**
     * Writes one line.
     *
     * @param message the message
     */
    public void tell(Map<String, ?> message) {
        output.println(JSON.toJson(message));
    }

    JsonElement ask(Map<String, ?> question) throws IOException {
        tell(Map.of("ask", question));
        return JsonParser.parseString(read()).getAsJsonObject().get("answer");
    }
}
