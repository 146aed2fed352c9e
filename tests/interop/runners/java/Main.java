import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import interop.Behaviour;
import interop.Suite;
import interop.Task;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.Map;

/** The Java runner: runs the behaviours that it is asked for on the standard input. */
final class Main {
    private Main() {}

    public static void main(String[] arguments) throws Exception {
        Suite suite = new Suite(System.in, System.out);
        for (String line = suite.read(); line != null; line = suite.read()) {
            JsonObject message = JsonParser.parseString(line).getAsJsonObject();
            suite.tell(outcome(message, suite));
        }
    }

    private static Map<String, Object> outcome(JsonObject message, Suite suite) {
        try {
            Behaviour behaviour =
                    (Behaviour) Class.forName(message.get("behaviour").getAsString() + ".Run")
                            .getConstructor()
                            .newInstance();
            return Map.of("observed", behaviour.run(new Task(message, suite)));
        } catch (Exception | AssertionError failure) {
            StringWriter trace = new StringWriter();
            failure.printStackTrace(new PrintWriter(trace));
            return Map.of("failed", trace.toString());
        }
    }
}
