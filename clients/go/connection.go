package abstractllm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// MessageLimit is the most bytes that one request or one answer may have; the server's default, too.
const MessageLimit = 16 * 1024 * 1024

// loadBalancing has gRPC's settings of each way in which calls are spread over the addresses of a name. Servers send
// averages: a new one need not be watched for gRPC's ten seconds before it has its weight.
var loadBalancing = map[string]string{
	"round_robin":          `{}`,
	"weighted_round_robin": `{"blackoutPeriod": "2s"}`,
}

// serviceConfig spreads calls over all addresses of a name, and retries them. gRPC waits as long as the server's
// grpc-retry-pushback-ms says, and gives up where it says -1.
const serviceConfig = `{
	"loadBalancingConfig": [{"%s": %s}],
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

// connect returns a connection to the address; it dials with the first call.
func (s *settings) connect(address string) (*grpc.ClientConn, error) {
	if address == "" || strings.HasPrefix(address, "http:") || strings.HasPrefix(address, "https:") {
		err := invalidSetting("address", "address must be host:port or unix:/path, got "+quotePrefix(address))
		err.Limit, err.Requested = "host:port or unix:/path", quotePrefix(address)
		return nil, err
	}
	if s.messageLimit <= 0 {
		return nil, invalidSetting("message_limit", "message_limit must be above 0 bytes")
	}
	if err := s.checkLoadBalancing(); err != nil {
		return nil, err
	}
	transport, err := s.transport()
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("abstractllm-go/" + Version),
		grpc.WithDefaultServiceConfig(fmt.Sprintf(serviceConfig, s.loadBalancing, loadBalancing[s.loadBalancing])),
		grpc.WithDisableServiceConfig(), // ignores one that the resolver brings; the one above always holds
		grpc.WithDefaultCallOptions(
			grpc.MaxCallSendMsgSize(s.messageLimit),
			grpc.MaxCallRecvMsgSize(s.messageLimit),
			// A request that does not fit into this buffer is not retried. The buffer also holds the message's frame.
			grpc.MaxRetryRPCBufferSize(s.messageLimit+64*1024),
		),
		// A server that is gone without closing its connection is noticed within 40 seconds while a call runs.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if s.token != nil {
		if !isPrintableASCII(*s.token) {
			return nil, invalidSetting("token", "token must be printable ASCII, and not empty")
		}
		options = append(options, grpc.WithPerRPCCredentials(bearerToken(*s.token)))
	}
	conn, err := grpc.NewClient(address, append(options, s.dialOptions...)...)
	if err != nil {
		return nil, invalidSetting("address", err.Error())
	}
	return conn, nil
}

// checkLoadBalancing refuses a policy that this client does not offer, or that is not part of this program.
func (s *settings) checkLoadBalancing() error {
	if _, offered := loadBalancing[s.loadBalancing]; !offered {
		err := invalidSetting("load_balancing", "load_balancing must be round_robin or weighted_round_robin, got "+
			quotePrefix(s.loadBalancing))
		err.Limit, err.Requested = "round_robin or weighted_round_robin", quotePrefix(s.loadBalancing)
		return err
	}
	if balancer.Get(s.loadBalancing) == nil {
		return invalidSetting("load_balancing", "load_balancing: a program that uses "+s.loadBalancing+
			` must import _ "google.golang.org/grpc/balancer/weightedroundrobin"`)
	}
	return nil
}

// transport returns the credentials of the transport: TLS, or none.
func (s *settings) transport() (credentials.TransportCredentials, error) {
	if !s.tls {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.roots != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(s.roots) {
			return nil, invalidSetting("root_certificates", "root_certificates holds no certificate in PEM")
		}
	}
	if s.keyPair != nil {
		pair, err := tls.X509KeyPair(s.keyPair.certificateChain, s.keyPair.privateKey)
		if err != nil {
			return nil, invalidSetting("certificate_chain", "certificate_chain and private_key: "+err.Error())
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config), nil
}

// bearerToken goes with every call, with TLS or without.
type bearerToken string

func (t bearerToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

func (bearerToken) RequireTransportSecurity() bool { return false }

// isPrintableASCII reports whether a text is printable ASCII and not empty.
func isPrintableASCII(text string) bool {
	for _, character := range text {
		if character < ' ' || character > '~' {
			return false
		}
	}
	return text != ""
}
