import io.abstractllm.Event;
import io.abstractllm.Options;
import io.abstractllm.RemoteLLM;
import java.util.List;

/** Prints an answer as it comes, first its text alone, then every event; two at once: Stream.java [HOST:PORT] [LLM]. */
class Stream {
    public static void main(String[] args) {
        String address = args.length > 0 ? args[0] : "127.0.0.1:50051";
        Options exactly = Options.builder().temperature(0).build();
        try (var llm = new RemoteLLM(address, args.length > 1 ? args[1] : "")) {
            try (var pieces = llm.streamText("Count from 1 to 10.", exactly)) {
                pieces.forEach(System.out::print);
            }
            System.out.println();

            try (var events = llm.stream("What is the opposite of hot?", exactly)) {
                for (Event event : events) {
                    if (event instanceof Event.TextDelta delta) {
                        System.out.print(delta.text());
                    } else if (event instanceof Event.Finished finished) {
                        double seconds =
                                finished.timing().firstToken().orElseThrow().toNanos() / 1e9;
                        System.out.printf("  (%s, first token after %.3f s)%n", finished.finishReason(), seconds);
                    }
                }
            }

            var answers = List.of("What is the capital of Italy?", "What is the capital of Japan?").stream()
                    .map(question -> llm.completeAsync(question, exactly))
                    .toList();
            answers.forEach(answer -> System.out.println(answer.join().text()));
        }
    }
}
