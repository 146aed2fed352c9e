package io.abstractllm;

import com.google.protobuf.MessageLite;
import io.abstractllm.v1.AllModels;
import io.abstractllm.v1.ClearCacheRequest;
import io.abstractllm.v1.ConfigServiceGrpc;
import io.abstractllm.v1.CountTokensRequest;
import io.abstractllm.v1.GenerateRequest;
import io.abstractllm.v1.GenerationServiceGrpc;
import io.abstractllm.v1.GetCapabilitiesRequest;
import io.abstractllm.v1.GetConfigRequest;
import io.abstractllm.v1.GetConfigResponse;
import io.abstractllm.v1.ListCachedModelsRequest;
import io.abstractllm.v1.ListCachedModelsResponse;
import io.abstractllm.v1.ListLlmsRequest;
import io.abstractllm.v1.LoadModelRequest;
import io.abstractllm.v1.ModelServiceGrpc;
import io.abstractllm.v1.PullModelRequest;
import io.abstractllm.v1.SetConfigResponse;
import io.abstractllm.v1.StreamGenerateResponse;
import io.abstractllm.v1.UnloadModelRequest;
import io.grpc.Channel;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Flow;

/** Makes a client's calls: prepares the requests, sends them on its connection, and decodes the responses. */
final class RemoteCalls {
    /** The number of cached models in one page; the most that the server gives. */
    private static final int PAGE_SIZE = 1000;

    private final Connection connection;
    private final String llm;
    private final int messageLimit;
    private final Options defaults;

    RemoteCalls(RemoteLLMBuilder builder) {
        connection = new Connection(builder.connection);
        llm = builder.llm;
        messageLimit = builder.connection.messageLimit;
        defaults = builder.defaults;
    }

    Channel channel() {
        return connection.channel();
    }

    void close() {
        connection.close();
    }

    /** Checks a prompt and its options, and merges them with the client's defaults. */
    PreparedCall prepare(String prompt, Options options) {
        Options merged = options.over(defaults);
        return new PreparedCall(checkSize(Requests.generate(llm, prompt, merged)), CallSettings.of(merged));
    }

    /** Checks a conversation and its options, and merges them with the client's defaults. */
    PreparedCall prepare(List<ChatMessage> messages, Options options) {
        Options merged = options.over(defaults);
        return new PreparedCall(checkSize(Requests.generate(llm, messages, merged)), CallSettings.of(merged));
    }

    /** Refuses a message beyond the limit, as gRPC would do only after seconds of retries. */
    private <M extends MessageLite> M checkSize(M request) {
        int size = request.getSerializedSize();
        if (size > messageLimit) {
            ErrorFacts facts =
                    ErrorFacts.ofField("request", "must have at most " + messageLimit + " bytes", messageLimit, size);
            facts.reason = ErrorReason.MESSAGE_TOO_LARGE;
            throw new InvalidRequestException(facts);
        }
        return request;
    }

    Completion complete(PreparedCall call) {
        return Responses.completion(
                connection.unary(GenerationServiceGrpc.getGenerateMethod(), call.request(), call.settings()));
    }

    CompletableFuture<Completion> completeAsync(PreparedCall call) {
        return connection.future(
                GenerationServiceGrpc.getGenerateMethod(), call.request(), call.settings(), Responses::completion);
    }

    RemoteStream<Event> stream(PreparedCall call) {
        return stream(call, new StreamDecoder.Events());
    }

    RemoteStream<String> streamText(PreparedCall call) {
        return stream(call, new StreamDecoder.Texts());
    }

    private <T> RemoteStream<T> stream(PreparedCall call, StreamDecoder<StreamGenerateResponse, T> decoder) {
        return connection.stream(
                GenerationServiceGrpc.getStreamGenerateMethod(), call.request(), call.settings(), decoder);
    }

    Flow.Publisher<Event> publish(PreparedCall call) {
        return new EventPublisher(connection, call);
    }

    long countTokens(PreparedCall call) {
        CountTokensRequest request = Requests.countTokens(call.request());
        return connection
                .unary(GenerationServiceGrpc.getCountTokensMethod(), request, call.settings())
                .getInputTokens();
    }

    /** The capabilities with the default options' model, or else the configured one. */
    Capabilities getCapabilities() {
        GenerateRequest.Builder defaultRequest = GenerateRequest.newBuilder();
        defaults.applyTo(defaultRequest);
        GetCapabilitiesRequest.Builder request =
                GetCapabilitiesRequest.newBuilder().setLlm(llm);
        if (defaultRequest.getParameters().hasModel()) {
            request.setModel(defaultRequest.getParameters().getModel());
        }
        return getCapabilities(request.build());
    }

    Capabilities getCapabilities(String model) {
        return getCapabilities(GetCapabilitiesRequest.newBuilder()
                .setLlm(llm)
                .setModel(Check.text(model, "model"))
                .build());
    }

    private Capabilities getCapabilities(GetCapabilitiesRequest request) {
        return Responses.capabilities(connection
                .unary(ModelServiceGrpc.getGetCapabilitiesMethod(), request, settings())
                .getCapabilities());
    }

    List<LlmInfo> listLlms() {
        return connection
                .unary(ModelServiceGrpc.getListLlmsMethod(), ListLlmsRequest.getDefaultInstance(), settings())
                .getLlmsList()
                .stream()
                .map(Responses::llmInfo)
                .toList();
    }

    ConfigState getConfig() {
        GetConfigRequest request = GetConfigRequest.newBuilder().setLlm(llm).build();
        GetConfigResponse response = connection.unary(ConfigServiceGrpc.getGetConfigMethod(), request, settings());
        return new ConfigState(response.getConfig(), response.getEtag());
    }

    ConfigState setConfig(ConfigChange change) {
        var request = change.request.toBuilder().setLlm(llm).build();
        SetConfigResponse response = connection.unary(ConfigServiceGrpc.getSetConfigMethod(), request, settings());
        return new ConfigState(response.getConfig(), response.getEtag());
    }

    /** The cached models of all pages. */
    List<CachedModel> listCachedModels() {
        List<CachedModel> models = new ArrayList<>();
        ListCachedModelsRequest.Builder request =
                ListCachedModelsRequest.newBuilder().setLlm(llm).setPageSize(PAGE_SIZE);
        do {
            ListCachedModelsResponse page =
                    connection.unary(ModelServiceGrpc.getListCachedModelsMethod(), request.build(), settings());
            page.getModelsList().forEach(model -> models.add(Responses.cachedModel(model)));
            request.setPageToken(page.getNextPageToken());
        } while (!request.getPageToken().isEmpty());
        return models;
    }

    ClearedModels clearModelCache(String model, boolean dryRun) {
        if (model == null || model.isEmpty()) {
            throw new InvalidRequestException(ErrorFacts.ofField(
                    "target",
                    "must be a model's name; clearWholeModelCache deletes all models",
                    "model or all",
                    model));
        }
        return clear(ClearCacheRequest.newBuilder().setModel(Check.text(model, "model")), dryRun);
    }

    ClearedModels clearWholeModelCache(boolean dryRun) {
        return clear(ClearCacheRequest.newBuilder().setAll(AllModels.getDefaultInstance()), dryRun);
    }

    private ClearedModels clear(ClearCacheRequest.Builder target, boolean dryRun) {
        ClearCacheRequest request = target.setLlm(llm).setDryRun(dryRun).build();
        return Responses.clearedModels(connection.unary(ModelServiceGrpc.getClearCacheMethod(), request, settings()));
    }

    RemoteStream<PullProgress> pullModel() {
        return pull(PullModelRequest.newBuilder());
    }

    RemoteStream<PullProgress> pullModel(String model) {
        return pull(PullModelRequest.newBuilder().setModel(Check.text(model, "model")));
    }

    private RemoteStream<PullProgress> pull(PullModelRequest.Builder request) {
        return connection.stream(
                ModelServiceGrpc.getPullModelMethod(),
                request.setLlm(llm).build(),
                settings().withoutTimeout(),
                StreamDecoder.of(Responses::pullProgress));
    }

    RemoteStream<LoadProgress> loadModel() {
        return connection.stream(
                ModelServiceGrpc.getLoadModelMethod(),
                LoadModelRequest.newBuilder().setLlm(llm).build(),
                settings().withoutTimeout(),
                StreamDecoder.of(Responses::loadProgress));
    }

    RemoteStream<UnloadProgress> unloadModel(boolean force) {
        return connection.stream(
                ModelServiceGrpc.getUnloadModelMethod(),
                UnloadModelRequest.newBuilder().setLlm(llm).setForce(force).build(),
                settings().withoutTimeout(),
                StreamDecoder.of(Responses::unloadProgress));
    }

    /** The settings of calls that take no options: those of the client's defaults. */
    private CallSettings settings() {
        return CallSettings.of(defaults);
    }
}
