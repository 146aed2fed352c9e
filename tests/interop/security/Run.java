package security;

import static interop.Report.map;
import static interop.Report.outcome;

import interop.Behaviour;
import interop.Task;
import io.abstractllm.Options;
import io.abstractllm.RemoteLLMBuilder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;

/** TLS, mutual TLS, tokens with roles, and a Unix socket: the right caller is answered, any other is told why. */
public final class Run implements Behaviour {
    @Override
    public Object run(Task task) throws Exception {
        byte[] roots = Files.readAllBytes(Path.of(task.server("root_certificates")));
        byte[] others = Files.readAllBytes(Path.of(task.server("other_root_certificates")));
        byte[] chain = Files.readAllBytes(Path.of(task.server("client_certificate")));
        byte[] key = Files.readAllBytes(Path.of(task.server("client_key")));
        String user = task.server("user_token");
        String admin = task.server("admin_token");
        String wrong = task.text("wrong_token");
        return map(
                "tls", ask(task, to(task, "tls").rootCertificates(roots)),
                "mtls", ask(task, to(task, "mtls").rootCertificates(roots).clientCertificate(chain, key)),
                "token", ask(task, to(task, "tokens").rootCertificates(roots).token(user)),
                "admin", configure(to(task, "tokens").rootCertificates(roots).token(admin)),
                "unix", ask(task, to(task, "unix")),
                "distrusted", ask(task, to(task, "tls").rootCertificates(others)),
                "without_certificate", ask(task, to(task, "mtls").rootCertificates(roots)),
                "no_token", ask(task, to(task, "tokens").rootCertificates(roots)),
                "wrong_token",
                        ask(task, to(task, "tokens").rootCertificates(roots).token(wrong)),
                "role", configure(to(task, "tokens").rootCertificates(roots).token(user)),
                "certificate_role",
                        configure(to(task, "mtls").rootCertificates(roots).clientCertificate(chain, key)));
    }

    private static RemoteLLMBuilder to(Task task, String server) {
        Duration timeout = Duration.ofSeconds(task.whole("timeout"));
        return task.connectTo(server)
                .defaults(Options.builder().timeout(timeout).build());
    }

    private static Object ask(Task task, RemoteLLMBuilder builder) throws Exception {
        try (var llm = builder.build()) {
            return outcome(() -> llm.generate(task.text("prompt")));
        }
    }

    private static Object configure(RemoteLLMBuilder builder) throws Exception {
        try (var llm = builder.build()) {
            return outcome(() -> !llm.getConfig().config().getModel().isEmpty());
        }
    }
}
