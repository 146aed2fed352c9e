package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Timestamp;
import io.abstractllm.v1.ClearCacheRequest;
import io.abstractllm.v1.ClearCacheResponse;
import io.abstractllm.v1.CountTokensResponse;
import io.abstractllm.v1.GetCapabilitiesRequest;
import io.abstractllm.v1.GetCapabilitiesResponse;
import io.abstractllm.v1.GetConfigResponse;
import io.abstractllm.v1.ListCachedModelsRequest;
import io.abstractllm.v1.ListCachedModelsResponse;
import io.abstractllm.v1.ListLlmsResponse;
import io.abstractllm.v1.LlmConfig;
import io.abstractllm.v1.LoadModelResponse;
import io.abstractllm.v1.PullModelRequest;
import io.abstractllm.v1.PullModelResponse;
import io.abstractllm.v1.SetConfigRequest;
import io.abstractllm.v1.SetConfigResponse;
import io.abstractllm.v1.UnloadModelRequest;
import io.abstractllm.v1.UnloadModelResponse;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.OptionalLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class ServerMethodsTest {
    private TestServer server;
    private RemoteLLM llm;

    @BeforeEach
    void start() throws Exception {
        server = new TestServer();
        llm = new RemoteLLM(server.address(), "local");
    }

    @AfterEach
    void stop() {
        llm.close();
        server.close();
    }

    @SuppressWarnings("unchecked")
    private <M> M lastRequest() {
        return (M) server.requests.get(server.requests.size() - 1);
    }

    @Test
    void tokensAreCounted() {
        server.answer(
                "CountTokens",
                CountTokensResponse.newBuilder().setInputTokens(1L << 40).build());
        assertEquals(1L << 40, llm.countTokens("Hi", Options.NONE));
        assertEquals(1L << 40, llm.countTokens(List.of(ChatMessage.user("Hi")), Options.NONE));
    }

    @Test
    void capabilitiesTellAbsentFromZero() {
        GetCapabilitiesResponse.Builder answer = GetCapabilitiesResponse.newBuilder();
        answer.getCapabilitiesBuilder()
                .setStreaming(true)
                .setRegex(true)
                .addParameters("top_k")
                .addProviderOptions("script")
                .setContextWindow(0)
                .setMaxConcurrentRequests(8)
                .setDevice("cpu");
        server.answer("GetCapabilities", answer.build());
        Capabilities capabilities = llm.getCapabilities();
        assertTrue(capabilities.streaming() && capabilities.regex());
        assertFalse(capabilities.tools());
        assertEquals(List.of("top_k"), capabilities.parameters());
        assertEquals(OptionalLong.of(0), capabilities.contextWindow());
        assertEquals(OptionalLong.empty(), capabilities.maxOutputTokens());
        assertEquals(OptionalInt.of(8), capabilities.maxConcurrentRequests());
        assertFalse(this.<GetCapabilitiesRequest>lastRequest().hasModel());
        llm.getCapabilities("small");
        assertEquals("small", this.<GetCapabilitiesRequest>lastRequest().getModel());
        try (var other = RemoteLLM.builder(server.address())
                .defaults(Options.builder().model("own").build())
                .build()) {
            other.getCapabilities();
        }
        assertEquals("own", this.<GetCapabilitiesRequest>lastRequest().getModel());
    }

    @Test
    void llmsAreListed() {
        ListLlmsResponse.Builder answer = ListLlmsResponse.newBuilder();
        answer.addLlmsBuilder().setName("gpt").setStateValue(3).setIsDefault(true);
        answer.addLlmsBuilder()
                .setName("local")
                .setStateValue(77)
                .setMemoryBytes(5)
                .setRunning(1);
        server.answer("ListLlms", answer.build());
        List<LlmInfo> llms = llm.listLlms();
        assertEquals(LlmState.READY, llms.get(0).state());
        assertEquals(OptionalLong.empty(), llms.get(0).memoryBytes());
        assertEquals("77", llms.get(1).state().toString());
        assertEquals(OptionalLong.of(5), llms.get(1).memoryBytes());
    }

    @Test
    void aConfigurationIsReadAndChangedByItsEtag() {
        LlmConfig config = LlmConfig.newBuilder().setModel("demo").build();
        server.answer(
                "GetConfig",
                GetConfigResponse.newBuilder().setConfig(config).setEtag("e1").build());
        server.answer(
                "SetConfig",
                SetConfigResponse.newBuilder().setConfig(config).setEtag("e2").build());
        assertEquals(new ConfigState(config, "e1"), llm.getConfig());
        assertEquals("e2", llm.setConfig(config).etag());
        assertEquals(
                SetConfigRequest.newBuilder().setLlm("local").setConfig(config).build(), lastRequest());
        llm.setConfig(ConfigChange.to(config)
                .mask(List.of("system_prompt"))
                .etag("e1")
                .validateOnly()
                .build());
        SetConfigRequest request = lastRequest();
        assertEquals(List.of("system_prompt"), request.getUpdateMask().getPathsList());
        assertEquals("e1", request.getEtag());
        assertTrue(request.getValidateOnly());
    }

    @Test
    void cachedModelsComeFromAllPages() {
        server.answer("ListCachedModels", (request, observer) -> {
            String token = ((ListCachedModelsRequest) request).getPageToken();
            ListCachedModelsResponse.Builder page = ListCachedModelsResponse.newBuilder();
            page.addModelsBuilder()
                    .setName("m" + token)
                    .setLastUsedTime(Timestamp.newBuilder().setSeconds(5).setNanos(7));
            observer.onNext(page.setNextPageToken(token.equals("2") ? "" : token.equals("1") ? "2" : "1")
                    .build());
            observer.onCompleted();
        });
        List<CachedModel> llms = llm.listCachedModels();
        assertEquals(
                List.of("m", "m1", "m2"), llms.stream().map(CachedModel::name).toList());
        assertEquals(Optional.of(Instant.ofEpochSecond(5, 7)), llms.get(0).lastUsedTime());
        assertEquals(Optional.empty(), llms.get(0).lastModifiedTime());
        assertEquals(1000, this.<ListCachedModelsRequest>lastRequest().getPageSize());
    }

    @Test
    void aCacheIsClearedOnlyOfWhatIsNamed() {
        server.answer(
                "ClearCache",
                ClearCacheResponse.newBuilder().addRemoved("m").setFreedBytes(9).build());
        assertEquals(new ClearedModels(List.of("m"), 9), llm.clearModelCache("m", true));
        ClearCacheRequest request = lastRequest();
        assertEquals("m", request.getModel());
        assertTrue(request.getDryRun());
        llm.clearWholeModelCache(false);
        request = lastRequest();
        assertTrue(request.hasAll());
        assertFalse(request.getDryRun());
        for (String none : new String[] {null, ""}) {
            var error = assertThrows(InvalidRequestException.class, () -> llm.clearModelCache(none, false));
            assertEquals("target", error.field().orElseThrow());
        }
        assertEquals(2, server.requests.size());
    }

    @Test
    void progressComesAsItIsMadeAndWithoutATimeout() {
        server.answer(
                "PullModel",
                PullModelResponse.newBuilder().setFile("a").setFileBytesDone(1).build(),
                PullModelResponse.newBuilder()
                        .setBytesTotal(2)
                        .setBytesDone(2)
                        .setDone(true)
                        .build());
        server.answer(
                "LoadModel",
                LoadModelResponse.newBuilder()
                        .setStateValue(2)
                        .setFraction(0)
                        .setPhase("weights")
                        .build(),
                LoadModelResponse.newBuilder().setStateValue(3).build());
        server.answer("UnloadModel", (request, observer) -> {
            Thread.sleep(400);
            observer.onNext(UnloadModelResponse.newBuilder()
                    .setStateValue(1)
                    .setRunning(0)
                    .build());
            observer.onCompleted();
        });
        try (var patient = RemoteLLM.builder(server.address())
                .llm("local")
                .defaults(Options.builder().timeout(Duration.ofMillis(100)).build())
                .build()) {
            assertEquals(
                    List.of(new UnloadProgress(LlmState.UNLOADED, 0)),
                    patient.unloadModel(true).stream().toList());
        }
        assertTrue(this.<UnloadModelRequest>lastRequest().getForce());
        assertEquals(
                List.of(
                        new PullProgress("a", 1, OptionalLong.empty(), 0, OptionalLong.empty(), false),
                        new PullProgress("", 0, OptionalLong.empty(), 2, OptionalLong.of(2), true)),
                llm.pullModel("small").stream().toList());
        assertEquals("small", this.<PullModelRequest>lastRequest().getModel());
        assertEquals(2, llm.pullModel().stream().count());
        assertFalse(this.<PullModelRequest>lastRequest().hasModel());
        assertEquals(
                List.of(
                        new LoadProgress(LlmState.LOADING, "weights", OptionalDouble.of(0)),
                        new LoadProgress(LlmState.READY, "", OptionalDouble.empty())),
                llm.loadModel().stream().toList());
    }
}
