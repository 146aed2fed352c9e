package many;

import static interop.Report.map;

import interop.Behaviour;
import interop.Task;
import io.abstractllm.RemoteLLM;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** Sixty-four streams at once over one client, each with its own answer. */
public final class Run implements Behaviour {
    /** The outcome and the times of one answer. */
    private record Answer(boolean right, int pieces, double firstPieceSeconds) {}

    @Override
    public Object run(Task task) throws Exception {
        int streams = task.whole("streams");
        List<Answer> answers = new ArrayList<>();
        double seconds;
        ExecutorService threads = Executors.newFixedThreadPool(streams);
        try (var llm = task.connect(task.text("llm"))) {
            llm.generate("connects");
            long begin = System.nanoTime();
            List<Future<List<Answer>>> running = new ArrayList<>();
            for (int stream = 0; stream < streams; stream++) {
                String prompt = (stream + " ").repeat(task.whole("words")).strip();
                running.add(threads.submit(() -> {
                    List<Answer> streamAnswers = new ArrayList<>();
                    for (int turn = 0; turn < task.whole("answers"); turn++) {
                        streamAnswers.add(ask(llm, prompt));
                    }
                    return streamAnswers;
                }));
            }
            for (Future<List<Answer>> stream : running) {
                answers.addAll(stream.get());
            }
            seconds = (System.nanoTime() - begin) / 1e9;
        } finally {
            threads.shutdownNow();
        }
        double[] firstPieces =
                answers.stream().mapToDouble(Answer::firstPieceSeconds).sorted().toArray();
        return map(
                "right",
                answers.stream().filter(Answer::right).count(),
                "pieces",
                answers.stream().mapToInt(Answer::pieces).sum(),
                "seconds",
                seconds,
                "first_piece_seconds",
                firstPieces[firstPieces.length / 2]);
    }

    private static Answer ask(RemoteLLM llm, String prompt) {
        long begin = System.nanoTime();
        double first = 0;
        int count = 0;
        StringBuilder text = new StringBuilder();
        try (var pieces = llm.streamText(prompt)) {
            for (String piece : pieces) {
                if (count++ == 0) {
                    first = (System.nanoTime() - begin) / 1e9;
                }
                text.append(piece);
            }
        }
        return new Answer(text.toString().equals(prompt), count, first);
    }
}
