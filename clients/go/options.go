package abstractllm

import (
	"strconv"
	"time"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/grpc"
)

// Option is a setting of a client.
type Option func(*settings)

// settings are what the options of a client set.
type settings struct {
	llm           string
	defaults      []GenerateOption
	token         *string
	tls           bool
	roots         []byte
	keyPair       *keyPair
	messageLimit  int
	loadBalancing string
	dialOptions   []grpc.DialOption
}

// keyPair is a certificate chain and its private key, in PEM.
type keyPair struct {
	certificateChain, privateKey []byte
}

// WithLLM names an LLM of the server's configuration; without it, calls go to the server's default LLM.
func WithLLM(name string) Option {
	return func(s *settings) { s.llm = name }
}

// WithDefaults sets options for every generation of this client; options of a call win over them. A default
// [WithTimeout] also bounds every other call, except for the progress of pulling, loading and unloading a model.
func WithDefaults(options ...GenerateOption) Option {
	return func(s *settings) { s.defaults = append(s.defaults, options...) }
}

// WithToken sends a bearer token with every call. Without TLS the token is not encrypted.
func WithToken(token string) Option {
	return func(s *settings) { s.token = &token }
}

// WithTLS uses TLS with the system's root certificates.
func WithTLS() Option {
	return func(s *settings) { s.tls = true }
}

// WithRootCertificates uses TLS with these root certificates, in PEM, instead of the system's.
func WithRootCertificates(pem []byte) Option {
	return func(s *settings) { s.tls, s.roots = true, append([]byte{}, pem...) }
}

// WithClientCertificate uses TLS and shows the server this certificate chain, with its key, both in PEM: mutual TLS.
func WithClientCertificate(certificateChain, privateKey []byte) Option {
	return func(s *settings) {
		s.tls, s.keyPair = true, &keyPair{certificateChain, privateKey}
	}
}

// WithMessageLimit sets the most bytes that one request or one answer may have; without it, [MessageLimit] holds.
func WithMessageLimit(bytes int) Option {
	return func(s *settings) { s.messageLimit = bytes }
}

// WithLoadBalancing sets how calls are spread over the addresses of a name: round_robin, which is the default, or
// weighted_round_robin, which sends fewer calls to servers that have more to do, as they tell with each answer. The
// latter is a package of gRPC's own that the program imports:
//
//	import _ "google.golang.org/grpc/balancer/weightedroundrobin"
func WithLoadBalancing(policy string) Option {
	return func(s *settings) { s.loadBalancing = policy }
}

// WithDialOptions adds options of gRPC itself; they win over those of this client.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dialOptions = append(s.dialOptions, options...) }
}

// GenerateOption is a setting of a generation. What is not set is the LLM's own default, never zero; the server refuses
// a value that is out of range.
type GenerateOption func(*generateCall)

// The options that set generation parameters, such as WithTemperature, are in parameters_generated.go.

// WithSystemPrompt sets instructions, which replace the system messages of the chat.
func WithSystemPrompt(text string) GenerateOption {
	return func(c *generateCall) { c.request.SystemPrompt = &text }
}

// WithResponseFormat sets the form that the answer must have.
func WithResponseFormat(format ResponseFormat) GenerateOption {
	return func(c *generateCall) {
		if format == nil {
			c.fail(invalidField("response_format", "a response format", "nil"))
			return
		}
		c.request.ResponseFormat = format.encodeFormat()
	}
}

// WithTools sets the functions that the model may ask to have called.
func WithTools(tools ...Tool) GenerateOption {
	return func(c *generateCall) {
		c.request.Tools = make([]*pb.Tool, len(tools))
		for index, tool := range tools {
			c.request.Tools[index] = tool.encode()
		}
	}
}

// WithToolChoice sets whether a tool must be called, and which one.
func WithToolChoice(choice ToolChoice) GenerateOption {
	return func(c *generateCall) {
		encoded, err := choice.encode()
		if err != nil {
			c.fail(err)
		}
		c.request.ToolChoice = encoded
	}
}

// WithProviderOptions sets options of the LLM's provider that are outside the contract; Capabilities.ProviderOptions
// lists their keys. Values are what encoding/json decodes to, other numbers, and slices and maps that hold them.
func WithProviderOptions(options map[string]any) GenerateOption {
	return func(c *generateCall) {
		encoded, err := encodeObject(options, "provider_options")
		if err != nil {
			c.fail(err)
		}
		c.request.ProviderOptions = encoded
	}
}

// WithRequestID sets the caller's own id for logs, traces and errors, at most 256 characters. It does not deduplicate.
func WithRequestID(id string) GenerateOption {
	return func(c *generateCall) { c.request.RequestId = id }
}

// WithLabels sets the caller's labels for logs and traces, at most 32.
func WithLabels(labels map[string]string) GenerateOption {
	return func(c *generateCall) { c.request.Labels = labels }
}

// WithParametersPolicy sets what happens to parameters that the LLM does not support.
func WithParametersPolicy(policy ParametersPolicy) GenerateOption {
	return func(c *generateCall) { c.request.ParametersPolicy = pb.ParametersPolicy(policy) }
}

// WithTimeout sets the most time that the whole call may take, waiting and retries included. The deadline of the context
// holds too.
func WithTimeout(timeout time.Duration) GenerateOption {
	return func(c *generateCall) {
		if timeout <= 0 {
			c.fail(invalidField("timeout", "greater than 0 seconds", strconv.FormatFloat(timeout.Seconds(), 'g', -1, 64)))
		}
		c.timeout = timeout
	}
}
