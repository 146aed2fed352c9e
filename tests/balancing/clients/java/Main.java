import io.abstractllm.Options;
import io.abstractllm.RemoteLLM;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.CompletableFuture;

/** The Java program: calls at a steady rate through one client; see main.go. */
public final class Main {
    private Main() {}

    /** The arguments are address, policy, calls a second, seconds, and the token, which may be empty. */
    public static void main(String[] arguments) throws Exception {
        double rate = Double.parseDouble(arguments[2]);
        double seconds = Double.parseDouble(arguments[3]);
        var builder = RemoteLLM.builder(arguments[0]).loadBalancing(arguments[1]);
        if (!arguments[4].isEmpty()) {
            builder.token(arguments[4]);
        }
        var options = Options.builder().timeout(Duration.ofSeconds(60)).build();
        try (var llm = builder.build()) {
            long begin = System.nanoTime();
            List<CompletableFuture<?>> calls = new ArrayList<>();
            for (int count = 0; count < rate * seconds; count++) {
                long wait = begin + (long) (count / rate * 1e9) - System.nanoTime();
                if (wait > 0) {
                    Thread.sleep(wait / 1_000_000, (int) (wait % 1_000_000));
                }
                long began = System.nanoTime();
                calls.add(llm.completeAsync("hello", options).handle((completion, error) -> {
                    tell(begin, began, error == null ? completion.text().split(" ")[0] : "error: " + error);
                    return null;
                }));
            }
            CompletableFuture.allOf(calls.toArray(CompletableFuture[]::new)).join();
        }
    }

    private static synchronized void tell(long begin, long began, String outcome) {
        System.out.println(String.format(
                Locale.ROOT,
                "%.3f %.4f %s",
                (began - begin) / 1e9,
                (System.nanoTime() - began) / 1e9,
                outcome.replace('\n', ' ')));
        System.out.flush();
    }
}
