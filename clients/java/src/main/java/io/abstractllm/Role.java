package io.abstractllm;

/**
 * The speaker of a chat message. A value that only newer servers know has no constant; it keeps its number.
 *
 * @param number the number in the contract
 */
public record Role(int number) {
    /** Instructions to the model. */
    public static final Role SYSTEM = new Role(io.abstractllm.v1.Role.ROLE_SYSTEM_VALUE);

    /** The person or program that asks. */
    public static final Role USER = new Role(io.abstractllm.v1.Role.ROLE_USER_VALUE);

    /** The model's own earlier answers. */
    public static final Role ASSISTANT = new Role(io.abstractllm.v1.Role.ROLE_ASSISTANT_VALUE);

    /** Results of the tools that the model asked to have called. */
    public static final Role TOOL = new Role(io.abstractllm.v1.Role.ROLE_TOOL_VALUE);

    /** The word, such as {@code user}; the number's digits for a value that this client does not know. */
    @Override
    public String toString() {
        return EnumNames.lowerCaseName(io.abstractllm.v1.Role.getDescriptor(), number);
    }
}
