package io.abstractllm;

import io.grpc.ManagedChannelBuilder;
import java.util.Objects;
import java.util.function.Consumer;

/**
 * Collects the settings of a {@link RemoteLLM}: its connection, its token, and the defaults of its calls.
 *
 * <pre>{@code
 * RemoteLLM llm = RemoteLLM.builder("127.0.0.1:50051").tls().token("secret").build();
 * }</pre>
 */
public final class RemoteLLMBuilder {
    final ConnectionSettings connection;
    String llm = "";
    Options defaults = Options.NONE;

    RemoteLLMBuilder(String address) {
        connection = new ConnectionSettings(Objects.requireNonNull(address, "address"));
    }

    /**
     * The LLM that answers.
     *
     * @param name the name of an LLM of the server's configuration; empty for its default
     * @return this builder
     */
    public RemoteLLMBuilder llm(String name) {
        llm = Check.text(name, "llm");
        return this;
    }

    /**
     * The default options of {@code generate}. Their timeout and metadata apply to every other call, too, but the
     * timeout does not bound {@code pullModel}, {@code loadModel} and {@code unloadModel}.
     *
     * @param options the options
     * @return this builder
     */
    public RemoteLLMBuilder defaults(Options options) {
        defaults = Objects.requireNonNull(options, "defaults");
        return this;
    }

    /**
     * A bearer token that goes with every call. Without TLS it travels in the clear.
     *
     * @param value printable ASCII
     * @return this builder
     * @throws ConfigurationException if it cannot be sent
     */
    public RemoteLLMBuilder token(String value) {
        if (value.isEmpty() || !CallSettings.isPrintable(value)) {
            ErrorFacts facts = new ErrorFacts("token: must be printable ASCII and not empty");
            facts.field = "token";
            throw new ConfigurationException(facts);
        }
        connection.token = value;
        return this;
    }

    /**
     * Uses TLS and trusts the roots of the Java runtime.
     *
     * @return this builder
     */
    public RemoteLLMBuilder tls() {
        connection.tls = true;
        return this;
    }

    /**
     * Uses TLS and trusts these roots instead of the runtime's.
     *
     * @param pem their certificates
     * @return this builder
     * @throws ConfigurationException if they cannot be read
     */
    public RemoteLLMBuilder rootCertificates(byte[] pem) {
        connection.rootCertificates = ConnectionSettings.certificates(pem, "root_certificates");
        return this;
    }

    /**
     * Uses TLS and shows a certificate of this client: mutual TLS.
     *
     * @param certificateChain PEM of the certificate and those that signed it
     * @param privateKey PEM of its key, as PKCS #8 ({@code BEGIN PRIVATE KEY})
     * @return this builder
     * @throws ConfigurationException if they cannot be read
     */
    public RemoteLLMBuilder clientCertificate(byte[] certificateChain, byte[] privateKey) {
        connection.certificateChain = ConnectionSettings.certificates(certificateChain, "certificate_chain");
        connection.privateKey = ConnectionSettings.privateKey(privateKey);
        return this;
    }

    /**
     * The most bytes of one request or one answer; 16 MiB, as the server has it, if not set.
     *
     * @param bytes the limit
     * @return this builder
     */
    public RemoteLLMBuilder messageLimit(int bytes) {
        if (bytes <= 0) {
            throw new ConfigurationException(
                    ErrorFacts.ofField("message_limit", "must be greater than 0 bytes", "greater than 0", bytes));
        }
        connection.messageLimit = bytes;
        return this;
    }

    /**
     * How calls are spread over the addresses of {@code dns:///name:port}: {@code round_robin}, which is the default,
     * or {@code weighted_round_robin}, which sends fewer calls to servers that have more to do, as they tell with each
     * answer. The latter is part of gRPC's own artefact {@code io.grpc:grpc-xds}, which the program adds.
     *
     * @param policy the name of the policy
     * @return this builder
     * @throws ConfigurationException if it is another, or that artefact is missing
     */
    public RemoteLLMBuilder loadBalancing(String policy) {
        connection.loadBalancing = ConnectionSettings.loadBalancing(policy);
        return this;
    }

    /**
     * Tries every call once only. Otherwise, those that fail as UNAVAILABLE or RESOURCE_EXHAUSTED before their first
     * event are tried up to five times, when and as long as the server says that a retry can help.
     *
     * @return this builder
     */
    public RemoteLLMBuilder withoutRetries() {
        connection.maxAttempts = 1;
        return this;
    }

    /**
     * Customizes gRPC's own builder, for all that has no setter: interceptors, a proxy, an executor.
     *
     * @param customization takes the builder, which has all of this client's settings
     * @return this builder
     */
    public RemoteLLMBuilder channel(Consumer<ManagedChannelBuilder<?>> customization) {
        connection.customization = Objects.requireNonNull(customization, "customization");
        return this;
    }

    /**
     * Makes the client; it connects with its first call.
     *
     * @return the client
     * @throws ConfigurationException if the address or a certificate cannot be used
     */
    public RemoteLLM build() {
        return new RemoteLLM(this);
    }
}
