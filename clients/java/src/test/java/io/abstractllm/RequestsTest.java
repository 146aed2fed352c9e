package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import com.google.protobuf.Descriptors.FieldDescriptor;
import io.abstractllm.v1.CountTokensRequest;
import io.abstractllm.v1.GenerateRequest;
import io.abstractllm.v1.GenerationParameters;
import java.lang.reflect.Method;
import java.time.Duration;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

class RequestsTest {
    private static GenerateRequest encoded(Options.Builder options) {
        return Requests.generate("", "Hi", options.build());
    }

    @Test
    void whatIsNotSetIsAbsent() {
        GenerateRequest request = Requests.generate("gpt", "Hi", Options.NONE);
        assertEquals(GenerateRequest.newBuilder().setLlm("gpt").setPrompt("Hi").build(), request);
        assertFalse(request.hasParameters());
    }

    private static List<FieldDescriptor> parameters() {
        return GenerationParameters.getDescriptor().getFields();
    }

    /** A value of the setter's type: zero, or what is not empty where nothing is sent for an empty one. */
    private static Object smallest(Class<?> type) {
        if (type == List.class) {
            return List.of("END");
        }
        if (type == Map.class) {
            return Map.of(0, 0.0);
        }
        if (type == String.class) {
            return "";
        }
        return type.isEnum() ? type.getEnumConstants()[0] : 0;
    }

    @ParameterizedTest
    @MethodSource("parameters")
    void everyParameterOfTheContractHasASetterAndItsZeroIsSent(FieldDescriptor field) throws Exception {
        Options.Builder options = Options.builder();
        Method setter = Arrays.stream(Options.Builder.class.getMethods())
                .filter(method -> method.getName().equals(field.getJsonName()))
                .findAny()
                .orElseThrow();
        assertSame(options, setter.invoke(options, smallest(setter.getParameterTypes()[0])));
        GenerationParameters parameters = encoded(options).getParameters();
        assertEquals(Set.of(field), parameters.getAllFields().keySet());
    }

    @Test
    void everyOptionArrivesInItsField() {
        GenerateRequest request = encoded(Options.builder()
                .systemPrompt("Be brief.")
                .model("small")
                .temperature(0.5)
                .topP(0.25)
                .topK(7)
                .minP(0.125)
                .maxTokens(100)
                .seed(1L << 62)
                .presencePenalty(-0.5)
                .frequencyPenalty(1.5)
                .repetitionPenalty(1.25)
                .stop(List.of("END", "\n"))
                .logitBias(Map.of(5, -100.0))
                .topLogprobs(3)
                .reasoningEffort(ReasoningEffort.XHIGH)
                .responseFormat(ResponseFormat.jsonSchema("{}", "capital", true))
                .tools(List.of(new Tool("f", "does", "{}")))
                .toolChoice(ToolChoice.REQUIRED)
                .providerOptions(Map.of("n", 1, "deep", Map.of("list", Arrays.asList(true, null, "x", 1.5))))
                .requestId("r-1")
                .labels(Map.of("team", "blue"))
                .parametersPolicy(ParametersPolicy.DROP_UNSUPPORTED));
        GenerateRequest.Builder wanted = GenerateRequest.newBuilder()
                .setPrompt("Hi")
                .setSystemPrompt("Be brief.")
                .setRequestId("r-1")
                .putLabels("team", "blue")
                .setParametersPolicy(io.abstractllm.v1.ParametersPolicy.PARAMETERS_POLICY_DROP_UNSUPPORTED);
        wanted.getParametersBuilder()
                .setModel("small")
                .setTemperature(0.5)
                .setTopP(0.25)
                .setTopK(7)
                .setMinP(0.125)
                .setMaxTokens(100)
                .setSeed(1L << 62)
                .setPresencePenalty(-0.5)
                .setFrequencyPenalty(1.5)
                .setRepetitionPenalty(1.25)
                .addStop("END")
                .addStop("\n")
                .putLogitBias(5, -100.0)
                .setTopLogprobs(3)
                .setReasoningEffort(io.abstractllm.v1.ReasoningEffort.REASONING_EFFORT_XHIGH);
        wanted.getResponseFormatBuilder()
                .getJsonSchemaBuilder()
                .setName("capital")
                .setSchemaJson("{}")
                .setStrict(true);
        wanted.addToolsBuilder().setName("f").setDescription("does").setParametersJsonSchema("{}");
        wanted.getToolChoiceBuilder().setMode(io.abstractllm.v1.ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED);
        assertEquals(wanted.build(), request.toBuilder().clearProviderOptions().build());
        assertEquals(1.0, request.getProviderOptions().getFieldsOrThrow("n").getNumberValue());
        var list = request.getProviderOptions()
                .getFieldsOrThrow("deep")
                .getStructValue()
                .getFieldsOrThrow("list")
                .getListValue();
        assertTrue(list.getValues(0).getBoolValue() && list.getValues(1).hasNullValue());
        assertEquals("x", list.getValues(2).getStringValue());
        assertEquals(1.5, list.getValues(3).getNumberValue());
    }

    @Test
    void everyKindOfFormatAndChoiceArrives() {
        assertTrue(encoded(Options.builder().responseFormat(ResponseFormat.jsonObject()))
                .getResponseFormat()
                .hasJsonObject());
        assertFalse(encoded(Options.builder().responseFormat(ResponseFormat.jsonSchema("{}")))
                .getResponseFormat()
                .getJsonSchema()
                .hasStrict());
        assertEquals(
                "[0-9]",
                encoded(Options.builder().responseFormat(ResponseFormat.regex("[0-9]")))
                        .getResponseFormat()
                        .getRegex());
        assertEquals(
                "start: x",
                encoded(Options.builder().responseFormat(ResponseFormat.grammar("start: x")))
                        .getResponseFormat()
                        .getGrammar());
        assertEquals(
                "f",
                encoded(Options.builder().toolChoice(ToolChoice.named("f")))
                        .getToolChoice()
                        .getName());
        assertEquals(
                io.abstractllm.v1.ToolChoiceMode.TOOL_CHOICE_MODE_NONE,
                encoded(Options.builder().toolChoice(ToolChoice.NONE))
                        .getToolChoice()
                        .getMode());
    }

    @Test
    void everyKindOfPartArrivesWithItsState() {
        ByteString state = ByteString.copyFrom(new byte[] {0, -1});
        List<ChatMessage> messages = List.of(
                ChatMessage.system("Be kind."),
                ChatMessage.user(new Part.Text("What?"), new Part.Image(new byte[] {1, 2}, "image/png")),
                new ChatMessage(
                        Role.ASSISTANT,
                        List.of(new Part.Reasoning("hm", state), new Part.ToolCall("1", "f", "{\"a\": 1}", state))),
                ChatMessage.tool(new Part.ToolResult("1", "no", true, ByteString.EMPTY)),
                ChatMessage.assistant("So."),
                new ChatMessage(new Role(99), List.of(new Part.Text("newer"))));
        var chat = Requests.generate("", messages, Options.NONE).getChat();
        assertEquals(
                List.of(1, 2, 3, 4, 3, 99),
                chat.getMessagesList().stream()
                        .map(io.abstractllm.v1.ChatMessage::getRoleValue)
                        .toList());
        assertEquals("image/png", chat.getMessages(1).getParts(1).getImage().getMimeType());
        assertEquals(2, chat.getMessages(1).getParts(1).getImage().getData().size());
        assertEquals(state, chat.getMessages(2).getParts(0).getProviderState());
        assertEquals("{\"a\": 1}", chat.getMessages(2).getParts(1).getToolCall().getArgumentsJson());
        assertTrue(chat.getMessages(3).getParts(0).getToolResult().getIsError());
        assertEquals("What?", messages.get(1).text());
    }

    @Test
    void anEmptyConversationIsStillOne() {
        assertTrue(Requests.generate("", List.of(), Options.NONE).hasChat());
    }

    @Test
    void aCallsOptionsReplaceTheClientsOneByOne() {
        Options defaults = Options.builder()
                .temperature(1)
                .topK(3)
                .stop(List.of("a", "b"))
                .labels(Map.of("x", "1"))
                .tools(List.of(new Tool("f", "", "")))
                .responseFormat(ResponseFormat.jsonSchema("{}", "named"))
                .timeout(Duration.ofSeconds(5))
                .build();
        Options call = Options.builder()
                .temperature(0)
                .stop(List.of("c"))
                .labels(Map.of("y", "2"))
                .tools(List.of())
                .responseFormat(ResponseFormat.jsonSchema("[]"))
                .build();
        GenerateRequest request = Requests.generate("", "Hi", call.over(defaults));
        assertEquals(0, request.getParameters().getTemperature());
        assertEquals(3, request.getParameters().getTopK());
        assertEquals(List.of("c"), request.getParameters().getStopList());
        assertEquals(Map.of("y", "2"), request.getLabelsMap());
        assertEquals(0, request.getToolsCount());
        assertEquals("", request.getResponseFormat().getJsonSchema().getName());
        assertEquals(Duration.ofSeconds(5), call.over(defaults).timeout());
    }

    @Test
    void tokensAreCountedWithSystemPromptToolsAndModel() {
        Options options = Options.builder()
                .systemPrompt("Be brief.")
                .model("small")
                .tools(List.of(new Tool("f", "", "")))
                .temperature(0)
                .build();
        CountTokensRequest request = Requests.countTokens(Requests.generate("gpt", "Hi", options));
        assertEquals("gpt", request.getLlm());
        assertEquals("Hi", request.getPrompt());
        assertEquals("Be brief.", request.getSystemPrompt());
        assertEquals("small", request.getModel());
        assertEquals(1, request.getToolsCount());
        request = Requests.countTokens(Requests.generate("", List.of(ChatMessage.user("Hi")), Options.NONE));
        assertEquals(1, request.getChat().getMessagesCount());
        assertFalse(request.hasModel() || request.hasSystemPrompt());
    }

    @ParameterizedTest
    @ValueSource(strings = {"\ud800", "a\udc00", "\udc00\ud800", "\ud83d"})
    void halfACharacterIsRefusedAndNamed(String text) {
        var error = assertThrows(InvalidRequestException.class, () -> Requests.generate("", text, Options.NONE));
        assertEquals("prompt", error.field().orElseThrow());
        List<ChatMessage> messages = List.of(ChatMessage.user("fine"), ChatMessage.user(text));
        error = assertThrows(InvalidRequestException.class, () -> Requests.generate("", messages, Options.NONE));
        assertEquals("chat.messages[1].parts[0].text", error.field().orElseThrow());
    }

    @Test
    void wholeCharactersOfAnyPlanePass() {
        assertEquals(
                "\ud83d\ude00 \uffff",
                encoded(Options.builder().systemPrompt("\ud83d\ude00 \uffff")).getSystemPrompt());
    }

    @Test
    void whatNoMessageCanHoldIsRefusedAndNamed() {
        Options.Builder options = Options.builder();
        assertRefused("parameters.temperature", () -> options.temperature(Double.NaN));
        assertRefused("parameters.logit_bias.7", () -> options.logitBias(Map.of(7, Double.POSITIVE_INFINITY)));
        assertRefused("timeout", () -> options.timeout(Duration.ZERO));
        assertRefused("provider_options.x", () -> options.providerOptions(Map.of("x", (1L << 53) + 1)));
        assertRefused("provider_options.x", () -> options.providerOptions(Map.of("x", new Object())));
        assertRefused("provider_options.x[1]", () -> options.providerOptions(Map.of("x", List.of(1, Double.NaN))));
        assertRefused(
                "provider_options.x",
                () -> options.providerOptions(Map.of("x", Collections.singletonMap(1, "not a string"))));
    }

    private static void assertRefused(String field, Runnable act) {
        var error = assertThrows(InvalidRequestException.class, act::run);
        assertEquals(field, error.field().orElseThrow());
        assertTrue(error.getMessage().startsWith(field), error.getMessage());
    }
}
