package io.abstractllm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.grpc.ServerCredentials;
import io.grpc.TlsServerCredentials;
import io.grpc.testing.TlsTesting;
import java.io.IOException;
import java.util.List;
import org.junit.jupiter.api.Test;

class TlsTest {
    static byte[] pem(String name) throws IOException {
        try (var stream = TlsTesting.loadCert(name)) {
            return stream.readAllBytes();
        }
    }

    /** The certificates at hand are of a name that is not this machine's. */
    private static RemoteLLMBuilder ofTheName(String address) {
        return RemoteLLM.builder(address)
                .withoutRetries()
                .channel(builder -> builder.overrideAuthority("foo.test.google.fr"));
    }

    @Test
    void tlsWithOwnRoots() throws Exception {
        ServerCredentials credentials =
                TlsServerCredentials.create(TlsTesting.loadCert("server1.pem"), TlsTesting.loadCert("server1.key"));
        try (TestServer server = new TestServer(0, credentials)) {
            server.say("There");
            try (var llm = ofTheName(server.address())
                    .rootCertificates(pem("ca.pem"))
                    .token("t")
                    .build()) {
                assertEquals("There", llm.generate("Hi"));
            }
            for (RemoteLLMBuilder distrusting : List.of(
                    ofTheName(server.address()),
                    ofTheName(server.address()).tls(),
                    ofTheName(server.address()).rootCertificates(pem("badserver.pem")))) {
                try (var llm = distrusting.build()) {
                    assertThrows(ProviderUnavailableException.class, () -> llm.generate("Hi"));
                }
            }
            assertEquals(1, server.requests.size());
        }
    }

    @Test
    void mutualTls() throws Exception {
        ServerCredentials credentials = TlsServerCredentials.newBuilder()
                .keyManager(TlsTesting.loadCert("server1.pem"), TlsTesting.loadCert("server1.key"))
                .trustManager(TlsTesting.loadCert("ca.pem"))
                .clientAuth(TlsServerCredentials.ClientAuth.REQUIRE)
                .build();
        try (TestServer server = new TestServer(0, credentials)) {
            server.say("There");
            try (var llm = ofTheName(server.address())
                    .rootCertificates(pem("ca.pem"))
                    .clientCertificate(pem("client.pem"), pem("client.key"))
                    .build()) {
                assertEquals("There", llm.generate("Hi"));
            }
            try (var llm =
                    ofTheName(server.address()).rootCertificates(pem("ca.pem")).build()) {
                assertThrows(ProviderUnavailableException.class, () -> llm.generate("Hi"));
            }
            assertEquals(1, server.requests.size());
        }
    }
}
