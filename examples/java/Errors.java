import io.abstractllm.AbstractLLMException;
import io.abstractllm.InvalidRequestException;
import io.abstractllm.Options;
import io.abstractllm.RemoteLLM;
import io.abstractllm.UnknownLLMException;
import java.time.Duration;

/** Shows errors that a program can act on: a class, a reason, the field, its limit: Errors.java [HOST:PORT] [LLM]. */
class Errors {
    public static void main(String[] args) {
        String address = args.length > 0 ? args[0] : "127.0.0.1:50051";
        try (var llm = new RemoteLLM(address, args.length > 1 ? args[1] : "");
                var nobody = new RemoteLLM(address, "nobody")) {
            try {
                llm.generate("Hi", Options.builder().temperature(5).build());
            } catch (InvalidRequestException error) {
                System.out.printf(
                        "%s: %s must be %s, not %s%n",
                        error.reason(),
                        error.field().orElse("it"),
                        error.limit().orElse("something else"),
                        error.requested().orElse("this"));
            }

            try {
                llm.generate(
                        "Hi", Options.builder().timeout(Duration.ofSeconds(30)).build());
                nobody.generate("Hi");
            } catch (UnknownLLMException error) {
                System.out.println(error.reason() + ": " + error.getMessage());
            } catch (AbstractLLMException error) { // whatever else there is
                System.out.printf(
                        "%s, worth a retry: %s, in the server's log under %s%n",
                        error.reason(), error.retryable(), error.requestId().orElse("no id"));
            }
        }
    }
}
