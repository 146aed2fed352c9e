import com.google.gson.Gson;
import io.abstractllm.Options;
import io.abstractllm.RemoteLLM;
import io.abstractllm.ResponseFormat;

/** Asks for an answer that a JSON schema describes, and it is valid: JsonSchema.java [HOST:PORT] [LLM]. */
class JsonSchema {
    private static final String SCHEMA =
            """
            {
              "type": "object",
              "properties": {
                "city": {"type": "string", "maxLength": 20},
                "inhabitants": {"type": "integer", "minimum": 0}
              },
              "required": ["city", "inhabitants"],
              "additionalProperties": false
            }
            """;

    record Capital(String city, java.math.BigInteger inhabitants) {}

    public static void main(String[] args) {
        String address = args.length > 0 ? args[0] : "127.0.0.1:50051";
        try (var llm = new RemoteLLM(address, args.length > 1 ? args[1] : "")) {
            String text = llm.generate(
                    "What is the capital of France?",
                    Options.builder()
                            .temperature(0)
                            .maxTokens(100)
                            .responseFormat(ResponseFormat.jsonSchema(SCHEMA, "capital"))
                            .build());
            Capital answer = new Gson().fromJson(text, Capital.class);
            System.out.println(answer.city() + " " + answer.inhabitants());
        }
    }
}
