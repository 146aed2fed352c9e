package abstractllm

import (
	"sync/atomic"
	"time"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/grpc"
)

// RemoteLLM is one LLM of a server. Several goroutines may use it at once.
type RemoteLLM struct {
	address      string
	name         string
	defaults     []GenerateOption
	timeout      time.Duration
	messageLimit int
	conn         *grpc.ClientConn
	closed       atomic.Bool
	generation   pb.GenerationServiceClient
	models       pb.ModelServiceClient
	config       pb.ConfigServiceClient
}

// NewRemoteLLM makes a client. It connects with the first call.
//
// The address is host:port, unix:/path/of/a/socket, or dns:///name:port. Calls are spread over all addresses of a
// name. The error is an ErrConfiguration where the address, the token or a certificate is malformed, and an
// ErrInvalidRequest where a default cannot be sent.
func NewRemoteLLM(address string, options ...Option) (*RemoteLLM, error) {
	settings := &settings{messageLimit: MessageLimit, loadBalancing: "round_robin"}
	for _, option := range options {
		option(settings)
	}
	conn, err := settings.connect(address)
	if err != nil {
		return nil, err
	}
	r := &RemoteLLM{
		address:      address,
		name:         settings.llm,
		defaults:     settings.defaults,
		messageLimit: settings.messageLimit,
		conn:         conn,
		generation:   pb.NewGenerationServiceClient(conn),
		models:       pb.NewModelServiceClient(conn),
		config:       pb.NewConfigServiceClient(conn),
	}
	call, err := r.encodeDefaults()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	r.timeout = call.timeout
	return r, nil
}

// encodeDefaults encodes a generation with the defaults alone. The error is for defaults that cannot be sent.
func (r *RemoteLLM) encodeDefaults() (*generateCall, error) {
	call, err := r.newGenerateCall(String("any prompt"), nil)
	if err != nil {
		return nil, err
	}
	if err := validateRequest(call.request, r.messageLimit); err != nil {
		return nil, err
	}
	return call, nil
}

// Address returns the server's address, as it was given to [NewRemoteLLM].
func (r *RemoteLLM) Address() string { return r.address }

// Name returns the LLM's name; empty for the server's default LLM.
func (r *RemoteLLM) Name() string { return r.name }

// Conn returns the connection of this client, for the generated stubs of package abstractllmv1. [ErrorFrom] reads their
// errors.
func (r *RemoteLLM) Conn() *grpc.ClientConn { return r.conn }

// Close closes the connection. Calls that still run end with ErrGenerationCancelled.
func (r *RemoteLLM) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	return r.conn.Close()
}
