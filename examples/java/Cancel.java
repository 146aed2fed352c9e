import io.abstractllm.GenerationTimeoutException;
import io.abstractllm.Options;
import io.abstractllm.RemoteLLM;
import java.time.Duration;

/** Leaves an answer before its end, and the server stops generating it at once: Cancel.java [HOST:PORT] [LLM]. */
class Cancel {
    public static void main(String[] args) {
        String address = args.length > 0 ? args[0] : "127.0.0.1:50051";
        Options exactly = Options.builder().temperature(0).build();
        try (var llm = new RemoteLLM(address, args.length > 1 ? args[1] : "")) {
            int number = 0;
            try (var pieces = llm.streamText("Count from 1 to 20.", exactly)) {
                for (String piece : pieces) {
                    System.out.print(piece);
                    if (++number == 5) {
                        break; // closing the stream ends the generation
                    }
                }
            }
            System.out.println(" ... enough");

            try {
                llm.generate(
                        "Count from 1 to 20.",
                        Options.builder().timeout(Duration.ofMillis(1)).build());
            } catch (GenerationTimeoutException error) {
                System.out.println("too late: " + error.getMessage());
            }
        }
    }
}
