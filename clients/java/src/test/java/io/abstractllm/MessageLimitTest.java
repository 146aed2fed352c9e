package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.abstractllm.v1.GenerateResponse;
import java.util.List;
import org.junit.jupiter.api.Test;

class MessageLimitTest {
    @Test
    void aRequestBeyondTheLimitIsRefusedBeforeItIsSent() throws Exception {
        try (TestServer server = new TestServer()) {
            server.say("There");
            try (var llm = new RemoteLLM(server.address());
                    var small = RemoteLLM.builder(server.address())
                            .messageLimit(100)
                            .build()) {
                assertEquals("There", llm.generate("x".repeat(ConnectionSettings.MESSAGE_LIMIT - 10)));
                String prompt = "x".repeat(ConnectionSettings.MESSAGE_LIMIT);
                for (Runnable ask : List.<Runnable>of(
                        () -> llm.generate(prompt),
                        () -> llm.streamText(prompt).close(),
                        () -> llm.countTokens(prompt, Options.NONE))) {
                    var error = assertThrows(InvalidRequestException.class, ask::run);
                    assertEquals(ErrorReason.MESSAGE_TOO_LARGE, error.reason());
                    assertEquals("16777216", error.limit().orElseThrow());
                    assertEquals("16777221", error.requested().orElseThrow());
                    assertEquals("request", error.field().orElseThrow());
                }
                assertThrows(InvalidRequestException.class, () -> small.generate("x".repeat(100)));
            }
            assertEquals(1, server.requests.size());
        }
    }

    @Test
    void anAnswerBeyondTheLimitIsRefusedByName() throws Exception {
        try (TestServer server = new TestServer()) {
            server.answer(
                    "Generate",
                    GenerateResponse.newBuilder()
                            .setText("x".repeat(ConnectionSettings.MESSAGE_LIMIT))
                            .build());
            try (var llm = new RemoteLLM(server.address())) {
                var error = assertThrows(InvalidRequestException.class, () -> llm.generate("Hi"));
                assertEquals(ErrorReason.MESSAGE_TOO_LARGE, error.reason());
            }
            assertEquals(1, server.requests.size());
        }
    }
}
