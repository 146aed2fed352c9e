import io.abstractllm.Completion;
import io.abstractllm.Options;
import io.abstractllm.RemoteLLM;

/** Asks a question and prints the answer, and what it took: Ask.java [HOST:PORT] [LLM]. */
class Ask {
    public static void main(String[] args) {
        String address = args.length > 0 ? args[0] : "127.0.0.1:50051";
        Options exactly = Options.builder().temperature(0).build();
        try (var llm = new RemoteLLM(address, args.length > 1 ? args[1] : "")) {
            System.out.println(llm.generate("What is the capital of France?", exactly));

            Completion answer = llm.complete("What is 7 + 5?", exactly);
            System.out.printf(
                    "%s  (%s: %d + %d tokens)%n",
                    answer.text(),
                    answer.model(),
                    answer.usage().inputTokens().orElse(0),
                    answer.usage().outputTokens().orElse(0));
        }
    }
}
