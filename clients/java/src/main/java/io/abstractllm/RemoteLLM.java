package io.abstractllm;

import io.abstractllm.v1.LlmConfig;
import io.grpc.Channel;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Flow;

/**
 * One LLM of a server.
 *
 * <pre>{@code
 * try (var llm = new RemoteLLM("127.0.0.1:50051")) {
 *     System.out.println(llm.generate("What is the capital of France?"));
 * }
 * }</pre>
 *
 * <p>Any thread may use it. Every method throws a subclass of {@link AbstractLLMException} for whatever goes wrong;
 * interrupting a waiting thread cancels its call. Configuration, cache, loading and unloading need the {@code admin}
 * role.
 */
public final class RemoteLLM implements AutoCloseable {
    private final String address;
    private final String llm;
    private final RemoteCalls calls;

    /**
     * Makes a client of the server's default LLM, without TLS.
     *
     * @param address {@code host:port}, {@code dns:///name:port}, or {@code unix:/path/of/a/socket}
     */
    public RemoteLLM(String address) {
        this(address, "");
    }

    /**
     * Makes a client of an LLM of a server, without TLS.
     *
     * @param address {@code host:port}, {@code dns:///name:port}, or {@code unix:/path/of/a/socket}
     * @param llm the name of an LLM of the server's configuration; empty for its default
     */
    public RemoteLLM(String address, String llm) {
        this(builder(address).llm(llm));
    }

    RemoteLLM(RemoteLLMBuilder builder) {
        address = builder.connection.address;
        llm = builder.llm;
        calls = new RemoteCalls(builder);
    }

    /**
     * Begins a client with a token, TLS or defaults.
     *
     * @param address {@code host:port}, {@code dns:///name:port}, or {@code unix:/path/of/a/socket}
     * @return a builder
     * @throws ConfigurationException if it is not an address
     */
    public static RemoteLLMBuilder builder(String address) {
        return new RemoteLLMBuilder(address);
    }

    /**
     * The server's address.
     *
     * @return the address that the client was made with
     */
    public String address() {
        return address;
    }

    /**
     * The name of the LLM that answers.
     *
     * @return the name; empty for the server's default
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
        return calls.channel();
    }

    /**
     * Answers a prompt.
     *
     * @param prompt the prompt
     * @return the answer's text
     */
    public String generate(String prompt) {
        return generate(prompt, Options.NONE);
    }

    /**
     * Answers a prompt.
     *
     * @param prompt the prompt
     * @param options the call's options
     * @return the answer's text
     */
    public String generate(String prompt, Options options) {
        return complete(prompt, options).text();
    }

    /**
     * Answers a conversation.
     *
     * @param messages the conversation, oldest message first
     * @param options the call's options
     * @return the answer's text
     */
    public String generate(List<ChatMessage> messages, Options options) {
        return complete(messages, options).text();
    }

    /**
     * Answers a prompt, with everything that there is to know of the answer.
     *
     * <pre>{@code
     * Completion answer = llm.complete("What is 7 + 5?", Options.builder().temperature(0).build());
     * System.out.println(answer.text() + " (" + answer.finishReason() + ")");
     * }</pre>
     *
     * @param prompt the prompt
     * @param options the call's options
     * @return the answer
     */
    public Completion complete(String prompt, Options options) {
        return calls.complete(calls.prepare(prompt, options));
    }

    /**
     * Answers a conversation, with everything that there is to know of the answer.
     *
     * @param messages the conversation, oldest message first
     * @param options the call's options
     * @return the answer
     */
    public Completion complete(List<ChatMessage> messages, Options options) {
        return calls.complete(calls.prepare(messages, options));
    }

    /**
     * Answers a prompt without blocking this thread; cancelling the future cancels the call.
     *
     * @param prompt the prompt
     * @param options the call's options
     * @return the answer
     */
    public CompletableFuture<Completion> completeAsync(String prompt, Options options) {
        return calls.completeAsync(calls.prepare(prompt, options));
    }

    /**
     * Answers a conversation without blocking this thread; cancelling the future cancels the call.
     *
     * @param messages the conversation, oldest message first
     * @param options the call's options
     * @return the answer
     */
    public CompletableFuture<Completion> completeAsync(List<ChatMessage> messages, Options options) {
        return calls.completeAsync(calls.prepare(messages, options));
    }

    /**
     * Answers a prompt as events.
     *
     * @param prompt the prompt
     * @param options the call's options
     * @return the events, {@link Event.Started} first and {@link Event.Finished} last
     */
    public RemoteStream<Event> stream(String prompt, Options options) {
        return calls.stream(calls.prepare(prompt, options));
    }

    /**
     * Answers a conversation as events.
     *
     * @param messages the conversation, oldest message first
     * @param options the call's options
     * @return the events, {@link Event.Started} first and {@link Event.Finished} last
     */
    public RemoteStream<Event> stream(List<ChatMessage> messages, Options options) {
        return calls.stream(calls.prepare(messages, options));
    }

    /**
     * Answers a prompt as pieces of text.
     *
     * <pre>{@code
     * try (var pieces = llm.streamText("Count from 1 to 20.")) {
     *     pieces.forEach(System.out::print);
     * }
     * }</pre>
     *
     * @param prompt the prompt
     * @return the pieces
     */
    public RemoteStream<String> streamText(String prompt) {
        return streamText(prompt, Options.NONE);
    }

    /**
     * Answers a prompt as pieces of text.
     *
     * @param prompt the prompt
     * @param options the call's options
     * @return the pieces
     */
    public RemoteStream<String> streamText(String prompt, Options options) {
        return calls.streamText(calls.prepare(prompt, options));
    }

    /**
     * Answers a conversation as pieces of text.
     *
     * @param messages the conversation, oldest message first
     * @param options the call's options
     * @return the pieces
     */
    public RemoteStream<String> streamText(List<ChatMessage> messages, Options options) {
        return calls.streamText(calls.prepare(messages, options));
    }

    /**
     * Answers a prompt as events without blocking a thread. Each subscription is a call of its own; cancelling it
     * cancels the call, and its demand slows the server down where the subscriber is slower.
     *
     * @param prompt the prompt
     * @param options the call's options
     * @return the events, {@link Event.Started} first and {@link Event.Finished} last
     */
    public Flow.Publisher<Event> publish(String prompt, Options options) {
        return calls.publish(calls.prepare(prompt, options));
    }

    /**
     * Answers a conversation as events without blocking a thread; see {@link #publish(String, Options)}.
     *
     * @param messages the conversation, oldest message first
     * @param options the call's options
     * @return the events, {@link Event.Started} first and {@link Event.Finished} last
     */
    public Flow.Publisher<Event> publish(List<ChatMessage> messages, Options options) {
        return calls.publish(calls.prepare(messages, options));
    }

    /**
     * Counts the tokens that a prompt takes, special tokens and chat template included.
     *
     * @param prompt the prompt
     * @param options the call's options; only the system prompt, the tools and the model change the number
     * @return the number of tokens
     * @throws UnsupportedFeatureException if the LLM's provider cannot count
     */
    public long countTokens(String prompt, Options options) {
        return calls.countTokens(calls.prepare(prompt, options));
    }

    /**
     * Counts the tokens that a conversation takes, special tokens and chat template included.
     *
     * @param messages the conversation, oldest message first
     * @param options the call's options; only the system prompt, the tools and the model change the number
     * @return the number of tokens
     * @throws UnsupportedFeatureException if the LLM's provider cannot count
     */
    public long countTokens(List<ChatMessage> messages, Options options) {
        return calls.countTokens(calls.prepare(messages, options));
    }

    /**
     * Reads the LLM's capabilities.
     *
     * @return the capabilities, with the model of the client's default options, where they have one
     */
    public Capabilities getCapabilities() {
        return calls.getCapabilities();
    }

    /**
     * Reads the LLM's capabilities with another model.
     *
     * @param model one of the models that the LLM's configuration lists
     * @return the capabilities
     */
    public Capabilities getCapabilities(String model) {
        return calls.getCapabilities(model);
    }

    /**
     * Lists all LLMs of the server and their states.
     *
     * @return the LLMs, sorted by name
     */
    public List<LlmInfo> listLlms() {
        return calls.listLlms();
    }

    /**
     * Reads the LLM's configuration on the server. Needs the {@code admin} role.
     *
     * @return the configuration, and the etag to change it with
     */
    public ConfigState getConfig() {
        return calls.getConfig();
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
        return calls.setConfig(change);
    }

    /**
     * Lists the models in the cache on the server's disk. Needs the {@code admin} role.
     *
     * @return the models of all pages, sorted by name
     */
    public List<CachedModel> listCachedModels() {
        return calls.listCachedModels();
    }

    /**
     * Deletes a model from the cache on the server's disk. Needs the {@code admin} role.
     *
     * @param model the model, named as {@link #listCachedModels()} names it; never means all of them
     * @param dryRun only report what would be deleted
     * @return the models that were deleted, or would be
     * @throws InvalidRequestException if the name is null or empty
     * @throws ModelInUseException if an LLM uses the model
     */
    public ClearedModels clearModelCache(String model, boolean dryRun) {
        return calls.clearModelCache(model, dryRun);
    }

    /**
     * Deletes every model from the cache on the server's disk. Needs the {@code admin} role.
     *
     * @param dryRun only report what would be deleted
     * @return the models that were deleted, or would be
     * @throws ModelInUseException if an LLM uses one of the models
     */
    public ClearedModels clearWholeModelCache(boolean dryRun) {
        return calls.clearWholeModelCache(dryRun);
    }

    /**
     * Downloads the LLM's model to the server's disk. Needs the {@code admin} role. Closing the stream detaches this
     * caller; when the last one leaves, the download stops.
     *
     * @return reports of the progress
     */
    public RemoteStream<PullProgress> pullModel() {
        return calls.pullModel();
    }

    /**
     * Downloads another model to the server's disk; see {@link #pullModel()}.
     *
     * @param model one of the models that the LLM's configuration lists
     * @return reports of the progress
     */
    public RemoteStream<PullProgress> pullModel(String model) {
        return calls.pullModel(model);
    }

    /**
     * Loads the LLM's model into the server's memory. Needs the {@code admin} role. Closing the stream does not stop
     * the load.
     *
     * @return reports of the progress
     */
    public RemoteStream<LoadProgress> loadModel() {
        return calls.loadModel();
    }

    /**
     * Unloads the LLM's model from the server's memory. Needs the {@code admin} role.
     *
     * @param force cancels the requests that run; otherwise they make it fail with {@link ModelInUseException}
     * @return reports of the progress
     */
    public RemoteStream<UnloadProgress> unloadModel(boolean force) {
        return calls.unloadModel(force);
    }

    /** Closes the connections; calls that run end with {@link GenerationCancelledException}. */
    @Override
    public void close() {
        calls.close();
    }

    @Override
    public String toString() {
        return "RemoteLLM(" + address + (llm.isEmpty() ? ")" : ", " + llm + ")");
    }
}
