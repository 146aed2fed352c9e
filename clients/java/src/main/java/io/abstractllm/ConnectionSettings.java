package io.abstractllm;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.LoadBalancerRegistry;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.ManagedChannelRegistry;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** The settings of a connection: address, credentials, limits, retry policy. The defaults match the server's limits. */
final class ConnectionSettings {
    static final int MESSAGE_LIMIT = 16 * 1024 * 1024;
    private static final int MAX_ATTEMPTS = 5;

    /** gRPC waits as long as the server's {@code grpc-retry-pushback-ms} says, and gives up where it says -1. */
    private static final Map<String, Object> RETRY_POLICY = Map.of(
            "maxAttempts",
            5.0,
            "initialBackoff",
            "0.2s",
            "maxBackoff",
            "10s",
            "backoffMultiplier",
            2.0,
            "retryableStatusCodes",
            List.of("UNAVAILABLE", "RESOURCE_EXHAUSTED"));

    static final String ROUND_ROBIN = "round_robin";
    private static final String WEIGHTED_ROUND_ROBIN = "weighted_round_robin";

    /**
     * The ways in which calls are spread over the addresses of {@code dns:///name:port}, with gRPC's settings of each.
     * Servers send averages: a new one need not be watched for gRPC's ten seconds before it has its weight.
     */
    private static final Map<String, Map<String, Object>> LOAD_BALANCING =
            Map.of(ROUND_ROBIN, Map.of(), WEIGHTED_ROUND_ROBIN, Map.of("blackoutPeriod", "2s"));

    /** The room that a retry needs for the request's metadata, beside its message. */
    private static final int METADATA_LIMIT = 64 * 1024;

    final String address;
    String token;
    boolean tls;
    byte[] rootCertificates;
    byte[] certificateChain;
    byte[] privateKey;
    int messageLimit = MESSAGE_LIMIT;
    String loadBalancing = ROUND_ROBIN;
    int maxAttempts = MAX_ATTEMPTS;
    Consumer<ManagedChannelBuilder<?>> customization = builder -> {};

    ConnectionSettings(String address) {
        if (address.isEmpty() || address.startsWith("http:") || address.startsWith("https:")) {
            throw new ConfigurationException(ErrorFacts.ofField(
                    "address", "must be host:port or unix:/path", "host:port or unix:/path", address));
        }
        this.address = address;
    }

    /** The metadata of every call. */
    Metadata metadata() {
        return CallSettings.metadata(token == null ? Map.of() : Map.of("authorization", "Bearer " + token));
    }

    /** Opens a channel; it connects with the first call. */
    ManagedChannel openChannel() {
        ChannelCredentials credentials = credentials();
        ManagedChannelBuilder<?> builder = namingAddress(() -> Grpc.newChannelBuilder(address, credentials))
                .defaultServiceConfig(serviceConfig())
                .maxInboundMessageSize(messageLimit)
                // What no longer fits this buffer is not retried. The channel's own sum is without a limit, as requests
                // that wait occupy memory anyway.
                .perRpcBufferLimit((long) messageLimit + METADATA_LIMIT)
                .retryBufferSize(Long.MAX_VALUE)
                // A server that is gone without a word is noticed within 40 seconds while a call runs.
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS);
        if (maxAttempts > 1) {
            builder.enableRetry();
        } else {
            builder.disableRetry();
        }
        customization.accept(builder);
        return namingAddress(builder::build);
    }

    private Map<String, Object> serviceConfig() {
        return Map.of(
                "loadBalancingConfig",
                List.of(Map.of(loadBalancing, LOAD_BALANCING.get(loadBalancing))),
                "methodConfig",
                List.of(Map.of("name", List.of(Map.of()), "retryPolicy", RETRY_POLICY)));
    }

    /** Takes a policy that this client offers, and that is part of this program. */
    static String loadBalancing(String policy) {
        if (!LOAD_BALANCING.containsKey(policy)) {
            String kinds = ROUND_ROBIN + " or " + WEIGHTED_ROUND_ROBIN;
            throw new ConfigurationException(ErrorFacts.ofField("load_balancing", "must be " + kinds, kinds, policy));
        }
        if (LoadBalancerRegistry.getDefaultRegistry().getProvider(policy) == null) {
            throw new ConfigurationException(ErrorFacts.ofField(
                    "load_balancing", "needs io.grpc:grpc-xds on the class path for " + policy, null, policy));
        }
        return policy;
    }

    /** Runs a step in which gRPC reads the address, and names the address where gRPC refuses it. */
    private <T> T namingAddress(Supplier<T> step) {
        try {
            return step.get();
        } catch (IllegalArgumentException | ManagedChannelRegistry.ProviderNotFoundException refused) {
            ErrorFacts facts = ErrorFacts.ofField(
                    "address",
                    "must be host:port or unix:/path (" + refused.getMessage() + ")",
                    "host:port or unix:/path",
                    address);
            facts.cause = refused;
            throw new ConfigurationException(facts);
        }
    }

    private ChannelCredentials credentials() {
        if (!tls && rootCertificates == null && certificateChain == null) {
            return InsecureChannelCredentials.create();
        }
        TlsChannelCredentials.Builder credentials = TlsChannelCredentials.newBuilder();
        try {
            if (rootCertificates != null) {
                credentials.trustManager(new ByteArrayInputStream(rootCertificates));
            }
            if (certificateChain != null) {
                credentials.keyManager(
                        new ByteArrayInputStream(certificateChain), new ByteArrayInputStream(privateKey));
            }
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible); // bytes can always be read
        }
        return credentials.build();
    }

    /** Takes PEM of certificates; gRPC would take a broken one for a fault of the address. */
    static byte[] certificates(byte[] pem, String field) {
        try {
            var certificates =
                    CertificateFactory.getInstance("X.509").generateCertificates(new ByteArrayInputStream(pem));
            if (!certificates.isEmpty()) {
                return pem.clone();
            }
        } catch (CertificateException broken) {
            throw notPem(field, "PEM of certificates", broken);
        }
        throw notPem(field, "PEM of certificates", null);
    }

    /** Takes PEM of a private key in the only form that the Java runtime reads. */
    static byte[] privateKey(byte[] pem) {
        if (!new String(pem, StandardCharsets.ISO_8859_1).contains("-----BEGIN PRIVATE KEY-----")) {
            throw notPem("private_key", "PEM of a key as PKCS #8, which begins with BEGIN PRIVATE KEY", null);
        }
        return pem.clone();
    }

    private static ConfigurationException notPem(String field, String limit, Throwable cause) {
        ErrorFacts facts = new ErrorFacts(field + ": must be " + limit);
        facts.field = field;
        facts.limit = limit;
        facts.cause = cause;
        return new ConfigurationException(facts);
    }
}
