package config;

import static interop.Report.map;

import interop.Behaviour;
import interop.Report;
import interop.Task;
import io.abstractllm.AbstractLLMException;
import io.abstractllm.ConfigChange;
import io.abstractllm.ConfigState;
import io.abstractllm.RemoteLLM;
import io.abstractllm.v1.GenerationParameters;
import io.abstractllm.v1.LlmConfig;
import java.util.List;
import java.util.Map;

/** The configuration of an LLM is read, changed by its etag or only checked, and refused when stale or wrong. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) {
        LlmConfig warmer = temperature(task.number("temperature"));
        try (var llm = task.connect(task.text("llm"))) {
            ConfigState before = llm.getConfig();
            ConfigState checked =
                    llm.setConfig(ConfigChange.to(warmer).validateOnly().build());
            boolean unchanged = llm.getConfig().equals(before);
            LlmConfig kinder = warmer.toBuilder()
                    .setSystemPrompt(task.text("system_prompt"))
                    .build();
            ConfigState changed =
                    llm.setConfig(ConfigChange.to(kinder).etag(before.etag()).build());
            String newEtag = llm.getConfig().etag();
            Object stale = failure(
                    llm, ConfigChange.to(temperature(0.75)).etag(before.etag()).build());
            Object wrong = failure(
                    llm, ConfigChange.to(temperature(task.number("wrong"))).build());
            ConfigState cleared = llm.setConfig(ConfigChange.to(LlmConfig.getDefaultInstance())
                    .mask(List.of("system_prompt"))
                    .build());
            LlmConfig original = temperature(before.config().getParameters().getTemperature()).toBuilder()
                    .setSystemPrompt(before.config().getSystemPrompt())
                    .build();
            return map(
                    "before", brief(before),
                    "checked", brief(checked),
                    "unchanged", unchanged,
                    "changed", brief(changed),
                    "new_etag", !newEtag.isEmpty() && !newEtag.equals(before.etag()),
                    "cleared", brief(cleared),
                    "stale", stale,
                    "wrong", wrong,
                    "restored", brief(llm.setConfig(original)));
        }
    }

    private static LlmConfig temperature(double value) {
        return LlmConfig.newBuilder()
                .setParameters(GenerationParameters.newBuilder().setTemperature(value))
                .build();
    }

    private static Object failure(RemoteLLM llm, ConfigChange change) {
        try {
            return brief(llm.setConfig(change));
        } catch (AbstractLLMException error) {
            Map<String, Object> report = Report.shortError(error);
            report.put("field", error.field().orElse(null));
            return report;
        }
    }

    private static Map<String, Object> brief(ConfigState state) {
        Map<String, Object> report = map("model", state.config().getModel());
        if (state.config().hasSystemPrompt()) {
            report.put("system_prompt", state.config().getSystemPrompt());
        }
        if (state.config().getParameters().hasTemperature()) {
            report.put("temperature", state.config().getParameters().getTemperature());
        }
        return report;
    }
}
