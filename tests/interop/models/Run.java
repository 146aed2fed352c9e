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

/** The models of the server: its LLMs, their capabilities, and the tokens of a prompt. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        try (var llm = task.connect(task.text("llm"));
                var local = task.connect(task.text("local"))) {
            Map<String, LlmInfo> llms = llm.listLlms().stream()
                    .collect(Collectors.toMap(LlmInfo::name, Function.identity(), (one, other) -> one, TreeMap::new));
            LlmInfo one = llms.get(task.text("local"));
            return map(
                    "llms", llms.keySet(),
                    "defaults",
                            llms.values().stream()
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
                    "spare", llms.get("spare").state().toString(),
                    "capabilities", brief(llm.getCapabilities()),
                    "local_capabilities", brief(local.getCapabilities()),
                    "tokens", llm.countTokens(task.text("prompt"), Options.NONE));
        }
    }

    private static Map<String, Object> brief(Capabilities capabilities) {
        return map(
                "tools", capabilities.tools(),
                "regex", capabilities.regex(),
                "streaming", capabilities.streaming(),
                "has_window", capabilities.contextWindow().isPresent(),
                "parameters", capabilities.parameters().stream().sorted().toList());
    }
}
