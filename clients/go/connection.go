package abstractllm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// MessageLimit is how many bytes one request or one answer may have; the server's default, too.
const MessageLimit = 16 * 1024 * 1024

// serviceConfig spreads calls over all addresses of a name, and tries calls again. gRPC waits as long as the server's
// grpc-retry-pushback-ms says, and gives up where it says -1.
const serviceConfig = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"methodConfig": [{
		"name": [{}],
		"retryPolicy": {
			"maxAttempts": 5,
			"initialBackoff": "0.2s",
			"maxBackoff": "10s",
			"backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
		}
	}]
}`

// Option is a setting of a client.
type Option func(*settings)

type settings struct {
	llm          string
	defaults     []GenerateOption
	token        *string
	tls          bool
	roots        []byte
	pair         *keyPair
	messageLimit int
	dialOptions  []grpc.DialOption
}

type keyPair struct {
	certificateChain, privateKey []byte
}

// WithLLM names an LLM of the server's configuration; without it, the server's default is asked.
func WithLLM(name string) Option {
	return func(settings *settings) { settings.llm = name }
}

// WithDefaults sets what every generation of this client begins with; options of a call win over them. A default
// [WithTimeout] also bounds every other call but progress streams.
func WithDefaults(options ...GenerateOption) Option {
	return func(settings *settings) { settings.defaults = append(settings.defaults, options...) }
}

// WithToken sends a bearer token with every call. Without TLS it travels in the clear.
func WithToken(token string) Option {
	return func(settings *settings) { settings.token = &token }
}

// WithTLS uses TLS with the system's root certificates.
func WithTLS() Option {
	return func(settings *settings) { settings.tls = true }
}

// WithRootCertificates uses TLS and trusts these roots, in PEM, instead of the system's.
func WithRootCertificates(pem []byte) Option {
	return func(settings *settings) { settings.tls, settings.roots = true, append([]byte{}, pem...) }
}

// WithClientCertificate uses TLS and shows the server this certificate chain, with its key, both in PEM: mutual TLS.
func WithClientCertificate(certificateChain, privateKey []byte) Option {
	return func(settings *settings) {
		settings.tls, settings.pair = true, &keyPair{certificateChain, privateKey}
	}
}

// WithMessageLimit changes how many bytes one request or one answer may have; without it, [MessageLimit].
func WithMessageLimit(bytes int) Option {
	return func(settings *settings) { settings.messageLimit = bytes }
}

// WithDialOptions adds gRPC's own options; they win over this client's.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(settings *settings) { settings.dialOptions = append(settings.dialOptions, options...) }
}

// connect makes a channel; it connects with the first call.
func (settings *settings) connect(address string) (*grpc.ClientConn, error) {
	if address == "" || strings.HasPrefix(address, "http:") || strings.HasPrefix(address, "https:") {
		err := misconfigured("address", "address must be host:port or unix:/path, got "+quoted(address))
		err.Limit, err.Requested = "host:port or unix:/path", quoted(address)
		return nil, err
	}
	if settings.messageLimit <= 0 {
		return nil, misconfigured("message_limit", "the message limit must be above 0 bytes")
	}
	transport, err := settings.transport()
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("abstractllm-go/" + Version),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(), // of the name's own; the one above holds everywhere
		grpc.WithDefaultCallOptions(
			grpc.MaxCallSendMsgSize(settings.messageLimit),
			grpc.MaxCallRecvMsgSize(settings.messageLimit),
			// What no longer fits this buffer is not retried. It also holds the message's frame.
			grpc.MaxRetryRPCBufferSize(settings.messageLimit+64*1024),
		),
		// A server that is gone without a word is noticed within 40 seconds while a call runs.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if settings.token != nil {
		if !printable(*settings.token) {
			return nil, misconfigured("token", "token must be printable ASCII, and not empty")
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer(*settings.token)))
	}
	conn, err := grpc.NewClient(address, append(options, settings.dialOptions...)...)
	if err != nil {
		return nil, misconfigured("address", err.Error())
	}
	return conn, nil
}

func (settings *settings) transport() (credentials.TransportCredentials, error) {
	if !settings.tls {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if settings.roots != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(settings.roots) {
			return nil, misconfigured("root_certificates", "root_certificates hold no certificate in PEM")
		}
	}
	if settings.pair != nil {
		pair, err := tls.X509KeyPair(settings.pair.certificateChain, settings.pair.privateKey)
		if err != nil {
			return nil, misconfigured("certificate_chain", "certificate_chain and private_key: "+err.Error())
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config), nil
}

// bearer is a token that goes with every call, with TLS or without.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

func printable(token string) bool {
	for _, character := range token {
		if character < ' ' || character > '~' {
			return false
		}
	}
	return token != ""
}
