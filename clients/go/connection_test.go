package abstractllm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/abstractllm/abstractllm-go"
	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

func TestCallsAreSpreadOverAllAddressesOfAName(t *testing.T) {
	first, second := serve(t), serve(t)
	first.answerWith("first")
	second.answerWith("second")
	names := manual.NewBuilderWithScheme("names")
	names.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: first.address}, {Addr: second.address}}})
	llm := client(t, "names:///service", abstractllm.WithDialOptions(grpc.WithResolvers(names)))
	for end := time.Now().Add(guard); first.calls() < 5 || second.calls() < 5; {
		_, err := llm.Generate(t.Context(), hi)
		check(t, err)
		if time.Now().After(end) {
			t.Fatalf("%d and %d calls", first.calls(), second.calls())
		}
	}
}

func TestAServerBehindAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Skipf("no unix sockets here: %v", err)
	}
	server := &server{}
	server.answerWith("There")
	server.serveOn(t, listener, nil)
	llm := client(t, "unix:"+path)
	if text, err := llm.Generate(t.Context(), hi); text != "There" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if llm.Address() != "unix:"+path || llm.Name() != "" {
		t.Errorf("%s, %q", llm.Address(), llm.Name())
	}
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	created := &authority{}
	created.pem, _ = created.sign(t, "root")
	block, _ := pem.Decode(created.pem)
	certificate, err := x509.ParseCertificate(block.Bytes)
	check(t, err)
	created.certificate = certificate
	return created
}

// sign makes a certificate and its key, in PEM; the first is the authority's own.
func (a *authority) sign(t *testing.T, name string) (certificate, key []byte) {
	t.Helper()
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true,
	}
	parent := a.certificate
	if parent == nil {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
		parent, a.key = template, pair
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, parent, &pair.PublicKey, a.key)
	check(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(pair)
	check(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// serveTLS starts a server with a certificate, which wants one of its callers, too, where mutual.
func (a *authority) serveTLS(t *testing.T, mutual bool) *server {
	t.Helper()
	pair, err := tls.X509KeyPair(a.sign(t, "server"))
	check(t, err)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: x509.NewCertPool()}
	config.ClientCAs.AddCert(a.certificate)
	if mutual {
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	server := serve(t, grpc.Creds(credentials.NewTLS(config)))
	server.answerWith("There")
	return server
}

func TestTLS(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	address, mutual := ours.serveTLS(t, false).address, ours.serveTLS(t, true).address
	roots, certificate := abstractllm.WithRootCertificates(ours.pem), abstractllm.WithClientCertificate(ours.sign(t, "a"))
	otherRoots := abstractllm.WithRootCertificates(others.pem)
	otherCertificate := abstractllm.WithClientCertificate(others.sign(t, "a"))
	once := abstractllm.WithDialOptions(grpc.WithDisableRetry())
	for name, call := range map[string]struct {
		address string
		options []abstractllm.Option
		works   bool
	}{
		"trusted roots":                    {address, []abstractllm.Option{roots}, true},
		"trusted roots and a certificate":  {mutual, []abstractllm.Option{roots, certificate}, true},
		"other roots":                      {address, []abstractllm.Option{otherRoots}, false},
		"the system's roots":               {address, []abstractllm.Option{abstractllm.WithTLS()}, false},
		"no TLS":                           {address, nil, false},
		"no certificate of the caller's":   {mutual, []abstractllm.Option{roots}, false},
		"a certificate of other authority": {mutual, []abstractllm.Option{roots, otherCertificate}, false},
	} {
		text, err := client(t, call.address, append(call.options, once)...).Generate(t.Context(), hi)
		works := text == "There" && err == nil
		if works != call.works || !works && !hasClass(err, abstractllm.ErrProviderUnavailable) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

func TestATokenGoesWithEveryCall(t *testing.T) {
	authority := newAuthority(t)
	for _, call := range []struct {
		server  *server
		options []abstractllm.Option
	}{
		{serve(t), []abstractllm.Option{abstractllm.WithToken("s3cret")}},
		{authority.serveTLS(t, false), []abstractllm.Option{
			abstractllm.WithToken("s3cret"), abstractllm.WithRootCertificates(authority.pem)}},
	} {
		call.server.answerWith("There")
		generateAndStream(t, client(t, call.server.address, call.options...), hi)
		if call.server.calls() != 2 {
			t.Errorf("%d calls instead of 2", call.server.calls())
		}
		for _, received := range call.server.metadata {
			if values := received["authorization"]; len(values) != 1 || values[0] != "Bearer s3cret" {
				t.Errorf("got %v", received)
			}
		}
	}
}

func TestTheCallersTraceContextIsPassedOn(t *testing.T) {
	server := serve(t)
	server.answerWith("There")
	parent := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent, "tracestate", "vendor=value")
	// A tracer's own interceptor adds what it wants to, too.
	tracer := grpc.WithUnaryInterceptor(func(
		ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
		options ...grpc.CallOption,
	) error {
		return invoke(metadata.AppendToOutgoingContext(ctx, "baggage", "a=b"), method, request, answer, conn, options...)
	})
	_, err := client(t, server.address, abstractllm.WithDialOptions(tracer)).Generate(ctx, hi)
	check(t, err)
	received := server.lastMetadata()
	for name, want := range map[string]string{"traceparent": parent, "tracestate": "vendor=value", "baggage": "a=b"} {
		if values := received[name]; len(values) != 1 || values[0] != want {
			t.Errorf("%s: got %q", name, values)
		}
	}
}

func TestAnAnswerBeyondTheMessageLimitIsTooLarge(t *testing.T) {
	server := serve(t)
	for _, limit := range []int{abstractllm.MessageLimit, 1000} {
		server.answerWith(strings.Repeat("x", limit+1))
		for _, err := range errorsOf(t, server, abstractllm.WithMessageLimit(limit)) {
			if !hasClass(err, abstractllm.ErrInvalidRequest) || err.Reason != abstractllm.ReasonMessageTooLarge ||
				err.Limit != strconv.Itoa(limit) || len(err.Requested) != len(err.Limit) || err.Retryable {
				t.Errorf("got %+v", err)
			}
		}
		server.answerWith(strings.Repeat("x", limit-100))
		texts, errs := generateAndStream(t, client(t, server.address, abstractllm.WithMessageLimit(limit)), hi)
		if errors.Join(errs...) != nil || len(texts[0]) != limit-100 || texts[1] != texts[0] {
			t.Errorf("%d and %d bytes, %v", len(texts[0]), len(texts[1]), errs)
		}
	}
	if server.calls() != 8 {
		t.Errorf("%d calls instead of 8: what is too large once is too large again", server.calls())
	}
}

func TestALargerMessageLimitHolds(t *testing.T) {
	server := serve(t)
	server.failWith(retryableFailure(14), 1, "There")
	prompt := abstractllm.String(strings.Repeat("x", 20_000_000))
	llm := client(t, server.address, abstractllm.WithMessageLimit(2*abstractllm.MessageLimit))
	if text, err := llm.Generate(t.Context(), prompt); text != "There" || err != nil || server.calls() != 2 {
		t.Errorf("%q, %v after %d calls", text, err, server.calls())
	}
}

func TestSettingsThatCannotBeAreRefused(t *testing.T) {
	authority := newAuthority(t)
	certificate, key := authority.sign(t, "a")
	for _, call := range []struct {
		field   string
		address string
		option  abstractllm.Option
	}{
		{"address", "", nil},
		{"address", "http://127.0.0.1:1", nil},
		{"address", "a b\x00:1", nil},
		{"token", "127.0.0.1:1", abstractllm.WithToken("")},
		{"token", "127.0.0.1:1", abstractllm.WithToken("a\nb")},
		{"token", "127.0.0.1:1", abstractllm.WithToken("é")},
		{"root_certificates", "127.0.0.1:1", abstractllm.WithRootCertificates([]byte("none"))},
		{"root_certificates", "127.0.0.1:1", abstractllm.WithRootCertificates(nil)},
		{"certificate_chain", "127.0.0.1:1", abstractllm.WithClientCertificate(nil, nil)},
		{"certificate_chain", "127.0.0.1:1", abstractllm.WithClientCertificate(certificate, nil)},
		{"certificate_chain", "127.0.0.1:1", abstractllm.WithClientCertificate(nil, key)},
		{"message_limit", "127.0.0.1:1", abstractllm.WithMessageLimit(0)},
		{"load_balancing", "127.0.0.1:1", abstractllm.WithLoadBalancing("fastest")},
		// A part of gRPC that this program does not import.
		{"load_balancing", "127.0.0.1:1", abstractllm.WithLoadBalancing("weighted_round_robin")},
	} {
		options := []abstractllm.Option{}
		if call.option != nil {
			options = append(options, call.option)
		}
		llm, err := abstractllm.NewRemoteLLM(call.address, options...)
		if failure, ok := errors.AsType[*abstractllm.Error](err); !ok || llm != nil ||
			!hasClass(err, abstractllm.ErrConfiguration) || failure.Field != call.field {
			t.Errorf("%s: got %v", call.field, err)
		}
	}
}

func TestTheGeneratedStubsWorkOnTheClientsChannel(t *testing.T) {
	server := serve(t)
	server.failWith(retryableFailure(14), 1, "There")
	stub := pb.NewGenerationServiceClient(client(t, server.address, abstractllm.WithToken("s3cret")).Conn())
	answer, err := stub.Generate(t.Context(), &pb.GenerateRequest{})
	if err != nil || answer.GetText() != "There" || server.calls() != 2 {
		t.Errorf("%v, %v after %d calls", answer, err, server.calls())
	}
	if agent := server.lastMetadata()["user-agent"]; !strings.HasPrefix(agent[0], "abstractllm-go/"+abstractllm.Version) {
		t.Errorf("got %v", agent)
	}
}
