package pull;

import static interop.Report.all;
import static interop.Report.map;

import interop.Behaviour;
import interop.Report;
import interop.Task;
import io.abstractllm.CachedModel;
import io.abstractllm.ClearedModels;
import io.abstractllm.PullProgress;
import java.util.List;
import java.util.Map;

/** A model comes from a hub to the server's disk with progress, is listed, and is deleted. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) throws Exception {
        String model = task.text("model");
        try (var llm = task.connect(task.text("llm"))) {
            List<PullProgress> reports = all(llm.pullModel());
            PullProgress last = reports.get(reports.size() - 1);
            List<Long> done = reports.stream().map(PullProgress::bytesDone).toList();
            List<CachedModel> listed = llm.listCachedModels();
            ClearedModels dryRun = llm.clearModelCache(model, true);
            return map(
                    "progress",
                            map(
                                    "first_is_not_done", !reports.get(0).done(),
                                    "last",
                                            map(
                                                    "file", last.file(),
                                                    "done", last.done(),
                                                    "is_whole",
                                                            last.bytesDone()
                                                                    == last.bytesTotal()
                                                                            .orElse(-1)),
                                    "files",
                                            reports.stream()
                                                    .anyMatch(one -> one.file().equals("model.safetensors")),
                                    "never_back",
                                            done.equals(done.stream().sorted().toList())),
                    "listed", listed.stream().map(Run::brief).toList(),
                    "no_target", Report.outcome(() -> llm.clearModelCache("", false)),
                    "not_listed", Report.outcome(() -> all(llm.pullModel("org/other"))),
                    "dry_run", cleared(dryRun),
                    "still_listed", llm.listCachedModels().size(),
                    "removed", cleared(llm.clearModelCache(model, false)),
                    "left", llm.listCachedModels().size());
        }
    }

    private static Map<String, Object> brief(CachedModel one) {
        return map(
                "name", one.name(),
                "revisions", one.revisions().size(),
                "has_size", one.sizeBytes() > 0,
                "used_by", one.usedBy(),
                "partial", one.partial());
    }

    private static Map<String, Object> cleared(ClearedModels models) {
        return map("removed", models.removed(), "frees", models.freedBytes() > 0);
    }
}
