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
import io.abstractllm.v1.LlmConfig;
import io.abstractllm.v1.LoadModelRequest;
import io.abstractllm.v1.ModelServiceGrpc;
import io.abstractllm.v1.PullModelRequest;
import io.abstractllm.v1.SetConfigResponse;
import io.abstractllm.v1.UnloadModelRequest;
import io.grpc.Channel;
import java.util.ArrayList;
import java.util.List;

/** What a client is made of, and its calls beside generation. */
abstract class RemoteCalls {
    /** Cached models asked for at a time; the server's largest page. */
    private static final int PAGE_SIZE = 1000;

    final String address;
    final Connection connection;
    private final String llm;
    private final int messageLimit;
    private final Options defaults;

    RemoteCalls(RemoteLLMBuilder builder) {
        address = builder.connection.address;
        messageLimit = builder.connection.messageLimit;
        llm = builder.llm;
        defaults = builder.defaults;
        connection = new Connection(builder.connection);
    }

    final PreparedCall prepare(String prompt, Options options) {
        Options all = options.over(defaults);
        return new PreparedCall(checked(Requests.generate(llm, prompt, all)), CallSettings.of(all));
    }

    final PreparedCall prepare(List<ChatMessage> messages, Options options) {
        Options all = options.over(defaults);
        return new PreparedCall(checked(Requests.generate(llm, messages, all)), CallSettings.of(all));
    }

    /** Refuses what gRPC would refuse too, but only after retrying it for seconds. */
    private <M extends MessageLite> M checked(M request) {
        int size = request.getSerializedSize();
        if (size > messageLimit) {
            ErrorFacts facts =
                    ErrorFacts.ofField("request", "must have at most " + messageLimit + " bytes", messageLimit, size);
            facts.reason = ErrorReason.MESSAGE_TOO_LARGE;
            throw new InvalidRequestException(facts);
        }
        return request;
    }

    private CallSettings settings() {
        return CallSettings.of(defaults);
    }

    /**
     * Where the server is.
     *
     * @return the address
     */
    public String address() {
        return address;
    }

    /**
     * The LLM that is defaultRequest.
     *
     * @return its name; empty for the server's default
     */
    public String llm() {
        return llm;
    }

    /**
     * The client's own connection, its token included, for the generated stubs in {@code io.abstractllm.v1} and those
     * of other services.
     *
     * @return the channel
     */
    public Channel channel() {
        return connection.channel();
    }

    /**
     * Counts the tokens that a prompt takes, special tokens and chat template included.
     *
     * @param prompt the prompt
     * @param options of which the system prompt, the tools and the model have a say
     * @return the number of tokens
     * @throws UnsupportedFeatureException if the LLM's provider cannot count
     */
    public long countTokens(String prompt, Options options) {
        return countTokens(prepare(prompt, options));
    }

    /**
     * Counts the tokens that a conversation takes, special tokens and chat template included.
     *
     * @param messages the conversation, oldest message first
     * @param options of which the system prompt, the tools and the model have a say
     * @return the number of tokens
     * @throws UnsupportedFeatureException if the LLM's provider cannot count
     */
    public long countTokens(List<ChatMessage> messages, Options options) {
        return countTokens(prepare(messages, options));
    }

    private long countTokens(PreparedCall call) {
        CountTokensRequest request = Requests.countTokens(call.request());
        return connection
                .unary(GenerationServiceGrpc.getCountTokensMethod(), request, call.settings())
                .getInputTokens();
    }

    /**
     * What the LLM can do.
     *
     * @return the capabilities, with the model of the client's default options, where they have one
     */
    public Capabilities getCapabilities() {
        GenerateRequest.Builder defaultRequest = GenerateRequest.newBuilder();
        defaults.applyTo(defaultRequest);
        GetCapabilitiesRequest.Builder request =
                GetCapabilitiesRequest.newBuilder().setLlm(llm);
        if (defaultRequest.getParameters().hasModel()) {
            request.setModel(defaultRequest.getParameters().getModel());
        }
        return capabilities(request);
    }

    /**
     * What the LLM can do with another model.
     *
     * @param model one of the models that the LLM's configuration lists
     * @return the capabilities
     */
    public Capabilities getCapabilities(String model) {
        return capabilities(GetCapabilitiesRequest.newBuilder().setLlm(llm).setModel(Check.text(model, "model")));
    }

    private Capabilities capabilities(GetCapabilitiesRequest.Builder request) {
        return Responses.capabilities(connection
                .unary(ModelServiceGrpc.getGetCapabilitiesMethod(), request.build(), settings())
                .getCapabilities());
    }

    /**
     * All LLMs of the server, and how they are.
     *
     * @return the LLMs, sorted by name
     */
    public List<LlmInfo> listLlms() {
        return connection
                .unary(ModelServiceGrpc.getListLlmsMethod(), ListLlmsRequest.getDefaultInstance(), settings())
                .getLlmsList()
                .stream()
                .map(Responses::llmInfo)
                .toList();
    }

    /**
     * The LLM's configuration on the server. Needs the {@code admin} role.
     *
     * @return the configuration, and the etag to change it with
     */
    public ConfigState getConfig() {
        GetConfigRequest request = GetConfigRequest.newBuilder().setLlm(llm).build();
        GetConfigResponse response = connection.unary(ConfigServiceGrpc.getGetConfigMethod(), request, settings());
        return new ConfigState(response.getConfig(), response.getEtag());
    }

    /**
     * Changes the LLM's configuration on the server, for every caller of it. Needs the {@code admin} role. This
     * client's own defaults stay as they are.
     *
     * @param config the new values; what is not set in them stays as it is
     * @return the configuration after the change
     */
    public ConfigState setConfig(LlmConfig config) {
        return setConfig(ConfigChange.to(config).build());
    }

    /**
     * Changes the LLM's configuration on the server, for every caller of it, or only checks the change. Needs the
     * {@code admin} role.
     *
     * @param change the change
     * @return the configuration after the change
     * @throws InvalidRequestException if the server refuses a value; nothing is changed then
     * @throws StaleConfigException if the change's etag is not the current one
     */
    public ConfigState setConfig(ConfigChange change) {
        var request = change.request.toBuilder().setLlm(llm).build();
        SetConfigResponse response = connection.unary(ConfigServiceGrpc.getSetConfigMethod(), request, settings());
        return new ConfigState(response.getConfig(), response.getEtag());
    }

    /**
     * The models in the cache on the server's disk. Needs the {@code admin} role.
     *
     * @return the models of all pages, sorted by name
     */
    public List<CachedModel> listCachedModels() {
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

    /**
     * Deletes a model from the cache on the server's disk. Needs the {@code admin} role.
     *
     * @param model the model, named as {@link #listCachedModels()} names it; never means all of them
     * @param dryRun only tell what would be deleted
     * @return what was deleted
     * @throws InvalidRequestException if the name is null or empty
     * @throws ModelInUseException if an LLM uses the model
     */
    public ClearedModels clearModelCache(String model, boolean dryRun) {
        if (model == null || model.isEmpty()) {
            throw new InvalidRequestException(
                    ErrorFacts.ofField("target", "must be a model's name, or all", "model or all", model));
        }
        return clear(ClearCacheRequest.newBuilder().setModel(Check.text(model, "model")), dryRun);
    }

    /**
     * Deletes every model from the cache on the server's disk. Needs the {@code admin} role.
     *
     * @param dryRun only tell what would be deleted
     * @return what was deleted
     * @throws ModelInUseException if an LLM uses one of the models
     */
    public ClearedModels clearWholeModelCache(boolean dryRun) {
        return clear(ClearCacheRequest.newBuilder().setAll(AllModels.getDefaultInstance()), dryRun);
    }

    private ClearedModels clear(ClearCacheRequest.Builder target, boolean dryRun) {
        ClearCacheRequest request = target.setLlm(llm).setDryRun(dryRun).build();
        return Responses.clearedModels(connection.unary(ModelServiceGrpc.getClearCacheMethod(), request, settings()));
    }

    /**
     * Downloads the LLM's model to the server's disk. Needs the {@code admin} role. Closing the stream detaches this
     * caller; the last one leaving stops the download.
     *
     * @return reports of the progress
     */
    public RemoteStream<PullProgress> pullModel() {
        return pull(PullModelRequest.newBuilder());
    }

    /**
     * Downloads another model to the server's disk; see {@link #pullModel()}.
     *
     * @param model one of the models that the LLM's configuration lists
     * @return reports of the progress
     */
    public RemoteStream<PullProgress> pullModel(String model) {
        return pull(PullModelRequest.newBuilder().setModel(Check.text(model, "model")));
    }

    private RemoteStream<PullProgress> pull(PullModelRequest.Builder request) {
        return connection.stream(
                ModelServiceGrpc.getPullModelMethod(),
                request.setLlm(llm).build(),
                settings().withoutTimeout(),
                StreamDecoder.of(Responses::pullProgress));
    }

    /**
     * Loads the LLM's model into the server's memory. Needs the {@code admin} role. Closing the stream does not stop
     * the load.
     *
     * @return reports of the progress
     */
    public RemoteStream<LoadProgress> loadModel() {
        return connection.stream(
                ModelServiceGrpc.getLoadModelMethod(),
                LoadModelRequest.newBuilder().setLlm(llm).build(),
                settings().withoutTimeout(),
                StreamDecoder.of(Responses::loadProgress));
    }

    /**
     * Unloads the LLM's model from the server's memory. Needs the {@code admin} role.
     *
     * @param force cancels the requests that run; otherwise they make it fail with {@link ModelInUseException}
     * @return reports of the progress
     */
    public RemoteStream<UnloadProgress> unloadModel(boolean force) {
        return connection.stream(
                ModelServiceGrpc.getUnloadModelMethod(),
                UnloadModelRequest.newBuilder().setLlm(llm).setForce(force).build(),
                settings().withoutTimeout(),
                StreamDecoder.of(Responses::unloadProgress));
    }
}
