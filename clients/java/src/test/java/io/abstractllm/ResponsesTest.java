package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import com.google.protobuf.Duration;
import com.google.protobuf.UnknownFieldSet;
import io.abstractllm.v1.GenerateResponse;
import io.abstractllm.v1.StreamGenerateResponse;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class ResponsesTest {
    private TestServer server;
    private RemoteLLM llm;

    @BeforeEach
    void start() throws Exception {
        server = new TestServer();
        llm = new RemoteLLM(server.address());
    }

    @AfterEach
    void stop() {
        llm.close();
        server.close();
    }

    /** A field that this contract does not have. */
    private static final UnknownFieldSet NEWER = UnknownFieldSet.newBuilder()
            .addField(
                    15,
                    UnknownFieldSet.Field.newBuilder()
                            .addLengthDelimited(ByteString.copyFromUtf8("new"))
                            .build())
            .build();

    @Test
    void aWholeAnswerComesWithAllThatBelongsToIt() {
        GenerateResponse.Builder answer = GenerateResponse.newBuilder()
                .setId("1")
                .setText("Paris")
                .setFinishReasonValue(FinishReason.STOP_SEQUENCE.number())
                .setStopSequence("END")
                .setLlm("best")
                .setProvider("openai")
                .setModel("m")
                .addDroppedParameters("parameters.top_k");
        answer.getMessageBuilder().setRoleValue(Role.ASSISTANT.number());
        answer.getMessageBuilder().addPartsBuilder().getReasoningBuilder().setText("hm");
        answer.getMessageBuilder().addPartsBuilder().setText("Paris");
        answer.getMessageBuilder().addPartsBuilder().setUnknownFields(NEWER);
        answer.getMessageBuilder()
                .addPartsBuilder()
                .setProviderState(ByteString.copyFromUtf8("signed"))
                .getToolCallBuilder()
                .setId("c")
                .setName("f")
                .setArgumentsJson("{}");
        answer.getUsageBuilder().setInputTokens(0).setOutputTokens(7);
        answer.getTimingBuilder().setQueued(Duration.newBuilder().setNanos(5));
        answer.addAttemptsBuilder()
                .setLlm("gpt")
                .setErrorReasonValue(15)
                .setMessage("slow down")
                .setDuration(Duration.newBuilder().setSeconds(1));
        answer.addAttemptsBuilder().setLlm("claude").setErrorReasonValue(999);
        answer.addAttemptsBuilder().setLlm("local");
        var entry = answer.addLogprobsBuilder().setTokenId(3).setToken("Par").setLogprob(-0.5);
        entry.setRawBytes(ByteString.copyFromUtf8("Par"));
        entry.addTopBuilder().setTokenId(4).setToken("Lon").setLogprob(-2);
        server.answer("Generate", answer.build());

        Completion completion = llm.complete("Hi", Options.NONE);
        assertEquals("Paris", completion.text());
        assertEquals(FinishReason.STOP_SEQUENCE, completion.finishReason());
        assertEquals("stop_sequence", completion.finishReason().toString());
        assertEquals("END", completion.stopSequence());
        assertEquals(OptionalLong.of(0), completion.usage().inputTokens());
        assertEquals(OptionalLong.empty(), completion.usage().reasoningTokens());
        assertEquals(
                Optional.of(java.time.Duration.ofNanos(5)), completion.timing().queued());
        assertEquals(Optional.empty(), completion.timing().total());
        assertEquals(List.of("parameters.top_k"), completion.droppedParameters());
        assertEquals(3, completion.message().parts().size());
        assertEquals("hm", completion.reasoning());
        assertEquals("signed", completion.toolCalls().get(0).providerState().toStringUtf8());
        assertEquals(
                List.of("Optional[RATE_LIMITED]", "Optional[999]", "Optional.empty"),
                completion.attempts().stream()
                        .map(attempt -> attempt.errorReason().toString())
                        .toList());
        assertEquals(
                java.time.Duration.ofSeconds(1), completion.attempts().get(0).duration());
        assertEquals("Par", completion.logprobs().get(0).tokenBytes().toStringUtf8());
        assertEquals(-2, completion.logprobs().get(0).top().get(0).logprob());
    }

    @Test
    void everyKindOfEventComesAndUnknownOnesAreSkipped() {
        StreamGenerateResponse.Builder reasoning = StreamGenerateResponse.newBuilder();
        reasoning.getReasoningDeltaBuilder().setText("hm");
        StreamGenerateResponse.Builder call = StreamGenerateResponse.newBuilder();
        call.getToolCallDeltaBuilder().setIndex(1).setId("c").setName("f").setArgumentsFragment("{");
        StreamGenerateResponse.Builder finished = StreamGenerateResponse.newBuilder();
        finished.getFinishedBuilder().setFinishReasonValue(99).getUsageBuilder().setOutputTokens(2);
        StreamGenerateResponse newer =
                StreamGenerateResponse.newBuilder().setUnknownFields(NEWER).build();
        server.answer(
                "StreamGenerate",
                TestServer.started(),
                newer,
                reasoning.build(),
                TestServer.delta("a"),
                TestServer.delta(""),
                newer,
                TestServer.delta("b"),
                call.build(),
                finished.build());
        try (var events = llm.stream("Hi", Options.NONE)) {
            List<Event> decoded = events.stream().toList();
            assertEquals(new Event.Started("1", "local", "test", "m", List.of()), decoded.get(0));
            assertEquals(new Event.ReasoningDelta("hm"), decoded.get(1));
            assertEquals(new Event.TextDelta("a", List.of()), decoded.get(2));
            assertEquals(new Event.ToolCallDelta(1, "c", "f", "{"), decoded.get(5));
            Event.Finished last = (Event.Finished) decoded.get(6);
            assertEquals(new FinishReason(99), last.finishReason());
            assertEquals("99", last.finishReason().toString());
            assertEquals(OptionalLong.of(2), last.usage().outputTokens());
            assertTrue(last.message().isEmpty());
            assertEquals(7, decoded.size());
        }
        try (var pieces = llm.streamText("Hi")) {
            assertEquals(List.of("a", "b"), pieces.stream().toList());
        }
    }

    @Test
    void unknownStatesAndRolesComeAsTheirNumbers() {
        assertEquals("42", new LlmState(42).toString());
        assertEquals("ready", LlmState.READY.toString());
        assertEquals("7", new Role(7).toString());
        assertEquals("unspecified", new Role(0).toString());
    }
}
