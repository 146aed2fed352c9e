package io.abstractllm;

import io.abstractllm.v1.GenerationServiceGrpc;
import io.abstractllm.v1.StreamGenerateResponse;
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
public final class RemoteLLM extends RemoteCalls implements AutoCloseable {
    /**
     * The server's default LLM.
     *
     * @param address {@code host:port}, {@code dns:///name:port}, or {@code unix:/path/of/a/socket}
     */
    public RemoteLLM(String address) {
        this(address, "");
    }

    /**
     * An LLM of a server, without TLS.
     *
     * @param address {@code host:port}, {@code dns:///name:port}, or {@code unix:/path/of/a/socket}
     * @param llm the name of an LLM of the server's configuration; empty for its default
     */
    public RemoteLLM(String address, String llm) {
        this(builder(address).llm(llm));
    }

    RemoteLLM(RemoteLLMBuilder builder) {
        super(builder);
    }

    /**
     * A client with a token, TLS or defaults.
     *
     * @param address {@code host:port}, {@code dns:///name:port}, or {@code unix:/path/of/a/socket}
     * @return a builder
     * @throws ConfigurationException for what is no address
     */
    public static RemoteLLMBuilder builder(String address) {
        return new RemoteLLMBuilder(address);
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
     * @param options what the call takes beside it
     * @return the answer's text
     */
    public String generate(String prompt, Options options) {
        return complete(prompt, options).text();
    }

    /**
     * Answers a conversation.
     *
     * @param messages the conversation, oldest message first
     * @param options what the call takes beside it
     * @return the answer's text
     */
    public String generate(List<ChatMessage> messages, Options options) {
        return complete(messages, options).text();
    }

    /**
     * Answers a prompt, with everything that there is to know of the answer.
     *
     * @param prompt the prompt
     * @param options what the call takes beside it
     * @return the answer
     */
    public Completion complete(String prompt, Options options) {
        return complete(prepare(prompt, options));
    }

    /**
     * Answers a conversation, with everything that there is to know of the answer.
     *
     * @param messages the conversation, oldest message first
     * @param options what the call takes beside it
     * @return the answer
     */
    public Completion complete(List<ChatMessage> messages, Options options) {
        return complete(prepare(messages, options));
    }

    private Completion complete(PreparedCall call) {
        return Responses.completion(
                connection.unary(GenerationServiceGrpc.getGenerateMethod(), call.request(), call.settings()));
    }

    /**
     * Answers a prompt without blocking this thread; cancelling the future cancels the call.
     *
     * @param prompt the prompt
     * @param options what the call takes beside it
     * @return the answer
     */
    public CompletableFuture<Completion> completeAsync(String prompt, Options options) {
        return completeAsync(prepare(prompt, options));
    }

    /**
     * Answers a conversation without blocking this thread; cancelling the future cancels the call.
     *
     * @param messages the conversation, oldest message first
     * @param options what the call takes beside it
     * @return the answer
     */
    public CompletableFuture<Completion> completeAsync(List<ChatMessage> messages, Options options) {
        return completeAsync(prepare(messages, options));
    }

    private CompletableFuture<Completion> completeAsync(PreparedCall call) {
        return connection.future(
                GenerationServiceGrpc.getGenerateMethod(), call.request(), call.settings(), Responses::completion);
    }

    /**
     * Answers a prompt as events.
     *
     * @param prompt the prompt
     * @param options what the call takes beside it
     * @return the events, {@link Event.Started} first and {@link Event.Finished} last
     */
    public RemoteStream<Event> stream(String prompt, Options options) {
        return stream(prepare(prompt, options), new StreamDecoder.Events());
    }

    /**
     * Answers a conversation as events.
     *
     * @param messages the conversation, oldest message first
     * @param options what the call takes beside it
     * @return the events, {@link Event.Started} first and {@link Event.Finished} last
     */
    public RemoteStream<Event> stream(List<ChatMessage> messages, Options options) {
        return stream(prepare(messages, options), new StreamDecoder.Events());
    }

    /**
     * Answers a prompt as pieces of text.
     *
     * @param prompt the prompt
     * @param options what the call takes beside it
     * @return the pieces
     */
    public RemoteStream<String> streamText(String prompt, Options options) {
        return stream(prepare(prompt, options), new StreamDecoder.Texts());
    }

    /**
     * Answers a prompt as pieces of text.
     *
     * @param prompt the prompt
     * @return the pieces
     */
    public RemoteStream<String> streamText(String prompt) {
        return streamText(prompt, Options.NONE);
    }

    /**
     * Answers a conversation as pieces of text.
     *
     * @param messages the conversation, oldest message first
     * @param options what the call takes beside it
     * @return the pieces
     */
    public RemoteStream<String> streamText(List<ChatMessage> messages, Options options) {
        return stream(prepare(messages, options), new StreamDecoder.Texts());
    }

    private <T> RemoteStream<T> stream(PreparedCall call, StreamDecoder<StreamGenerateResponse, T> decoder) {
        return connection.stream(
                GenerationServiceGrpc.getStreamGenerateMethod(), call.request(), call.settings(), decoder);
    }

    /**
     * Answers a prompt as events without blocking a thread. Each subscription is a call of its own; cancelling it
     * cancels the call, and its demand slows the server down where the subscriber is slower.
     *
     * @param prompt the prompt
     * @param options what the call takes beside it
     * @return the events, {@link Event.Started} first and {@link Event.Finished} last
     */
    public Flow.Publisher<Event> publish(String prompt, Options options) {
        PreparedCall call = prepare(prompt, options);
        return new EventPublisher(connection, call.request(), call.settings());
    }

    /**
     * Answers a conversation as events without blocking a thread; see {@link #publish(String, Options)}.
     *
     * @param messages the conversation, oldest message first
     * @param options what the call takes beside it
     * @return the events, {@link Event.Started} first and {@link Event.Finished} last
     */
    public Flow.Publisher<Event> publish(List<ChatMessage> messages, Options options) {
        PreparedCall call = prepare(messages, options);
        return new EventPublisher(connection, call.request(), call.settings());
    }

    /** Closes the connections; calls that run end with {@link GenerationCancelledException}. */
    @Override
    public void close() {
        connection.close();
    }

    @Override
    public String toString() {
        return "RemoteLLM(" + address + (llm().isEmpty() ? ")" : ", " + llm() + ")");
    }
}
