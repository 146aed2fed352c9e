package io.abstractllm;

import io.abstractllm.v1.JsonObjectFormat;
import io.abstractllm.v1.JsonSchemaFormat;

/**
 * The form that an answer must have.
 *
 * <pre>{@code
 * Options options = Options.builder()
 *         .responseFormat(ResponseFormat.jsonSchema("{\"type\": \"object\"}"))
 *         .build();
 * }</pre>
 */
public final class ResponseFormat {
    final io.abstractllm.v1.ResponseFormat value;

    private ResponseFormat(io.abstractllm.v1.ResponseFormat.Builder value) {
        this.value = value.build();
    }

    /**
     * Any JSON object.
     *
     * @return the format
     */
    public static ResponseFormat jsonObject() {
        return new ResponseFormat(
                io.abstractllm.v1.ResponseFormat.newBuilder().setJsonObject(JsonObjectFormat.getDefaultInstance()));
    }

    /**
     * JSON that follows a schema.
     *
     * @param schemaJson the JSON Schema, as JSON text
     * @return the format
     */
    public static ResponseFormat jsonSchema(String schemaJson) {
        return jsonSchema(schemaJson, "");
    }

    /**
     * JSON that follows a schema, with a name that some providers show to the model.
     *
     * @param schemaJson the JSON Schema, as JSON text
     * @param name the schema's name
     * @return the format
     */
    public static ResponseFormat jsonSchema(String schemaJson, String name) {
        return ofSchema(schema(schemaJson, name));
    }

    /**
     * JSON that follows a schema, which the provider must enforce or may merely aim at.
     *
     * @param schemaJson the JSON Schema, as JSON text
     * @param name the schema's name
     * @param strict true if the provider must enforce the schema, false if it may merely aim at it
     * @return the format
     */
    public static ResponseFormat jsonSchema(String schemaJson, String name, boolean strict) {
        return ofSchema(schema(schemaJson, name).setStrict(strict));
    }

    /**
     * Text that matches a regular expression from its first to its last character.
     *
     * @param regex the expression
     * @return the format
     */
    public static ResponseFormat regex(String regex) {
        String checked = Check.text(regex, "response_format.regex");
        return new ResponseFormat(io.abstractllm.v1.ResponseFormat.newBuilder().setRegex(checked));
    }

    /**
     * Text of a context-free grammar, in the notation that the LLM's provider documents.
     *
     * @param grammar the grammar
     * @return the format
     */
    public static ResponseFormat grammar(String grammar) {
        String checked = Check.text(grammar, "response_format.grammar");
        return new ResponseFormat(io.abstractllm.v1.ResponseFormat.newBuilder().setGrammar(checked));
    }

    private static JsonSchemaFormat.Builder schema(String schemaJson, String name) {
        return JsonSchemaFormat.newBuilder()
                .setName(Check.text(name, "response_format.json_schema.name"))
                .setSchemaJson(Check.text(schemaJson, "response_format.json_schema.schema_json"));
    }

    private static ResponseFormat ofSchema(JsonSchemaFormat.Builder schema) {
        return new ResponseFormat(io.abstractllm.v1.ResponseFormat.newBuilder().setJsonSchema(schema));
    }
}
