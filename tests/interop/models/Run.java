package models;

import static interop.Report.map;

import interop.Behaviour;
import interop.Task;
import io.abstractllm.Capabilities;
import io.abstractllm.LlmInfo;
import io.abstractllm.Options;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Function;
import java.util.stream.Collectors;

/** What the server has: its LLMs, what each can do, and what a prompt takes. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        try (var llm = task.connect(task.text("llm"));
                var local = task.connect(task.text("local"))) {
            Map<String, LlmInfo> found = llm.listLlms().stream()
                    .collect(Collectors.toMap(LlmInfo::name, Function.identity(), (one, other) -> one, TreeMap::new));
            LlmInfo one = found.get(task.text("local"));
            return map(
                    "llms", found.keySet(),
                    "defaults",
                            found.values().stream()
                                    .filter(LlmInfo::isDefault)
                                    .map(LlmInfo::name)
                                    .toList(),
                    "local",
                            map(
                                    "provider", one.provider(),
                                    "model", one.model(),
                                    "state", one.state().toString(),
                                    "device", one.device(),
                                    "has_memory", one.memoryBytes().orElse(0) > 0,
                                    "running", one.running(),
                                    "queued", one.queued()),
                    "spare", found.get("spare").state().toString(),
                    "capabilities", brief(llm.getCapabilities()),
                    "local_capabilities", brief(local.getCapabilities()),
                    "tokens", llm.countTokens(task.text("prompt"), Options.NONE));
        }
    }

    private static Map<String, Object> brief(Capabilities found) {
        return map(
                "tools", found.tools(),
                "regex", found.regex(),
                "streaming", found.streaming(),
                "has_window", found.contextWindow().isPresent(),
                "parameters", found.parameters().stream().sorted().toList());
    }
}
