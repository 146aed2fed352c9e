package io.abstractllm;

import io.abstractllm.v1.ToolChoiceMode;

/** The rule that says if the model must call a tool, and which. */
public final class ToolChoice {
    /** The model decides. */
    public static final ToolChoice AUTO = of(ToolChoiceMode.TOOL_CHOICE_MODE_AUTO);

    /** No tool may be called. */
    public static final ToolChoice NONE = of(ToolChoiceMode.TOOL_CHOICE_MODE_NONE);

    /** Some tool must be called. */
    public static final ToolChoice REQUIRED = of(ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED);

    final io.abstractllm.v1.ToolChoice value;

    private ToolChoice(io.abstractllm.v1.ToolChoice value) {
        this.value = value;
    }

    /**
     * The one tool that must be called.
     *
     * @param name its name
     * @return the choice
     */
    public static ToolChoice named(String name) {
        String checked = Check.text(name, "tool_choice.name");
        return new ToolChoice(
                io.abstractllm.v1.ToolChoice.newBuilder().setName(checked).build());
    }

    private static ToolChoice of(ToolChoiceMode mode) {
        return new ToolChoice(
                io.abstractllm.v1.ToolChoice.newBuilder().setMode(mode).build());
    }
}
