package io.abstractllm;

/**
 * A function that the model may ask to be called.
 *
 * @param name its name: 1 to 64 letters, digits, {@code _} or {@code -}
 * @param description what it does and when to call it, for the model to read
 * @param parametersJsonSchema the JSON Schema of its arguments, as JSON text; empty: it takes none
 */
public record Tool(String name, String description, String parametersJsonSchema) {}
