package io.abstractllm;

/**
 * A function that the model may ask to have called.
 *
 * <pre>{@code
 * String schema = "{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}";
 * Tool weather = new Tool("weather", "Tells the weather in a city", schema);
 * }</pre>
 *
 * @param name its name: 1 to 64 letters, digits, {@code _} or {@code -}
 * @param description the model reads here what it does and when to call it
 * @param parametersJsonSchema the JSON Schema of its arguments, as JSON text; empty: it takes none
 */
public record Tool(String name, String description, String parametersJsonSchema) {}
