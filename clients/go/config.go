package abstractllm

import (
	"context"
	"time"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// Config is the part of an LLM's configuration that can be changed on a running server. A field that is nil, empty or
// zero is not set.
type Config struct {
	// Model is one of the models that the server's configuration file lists for this LLM.
	Model string
	// SystemPrompt is the default for requests that leave it absent.
	SystemPrompt *string
	// Parameters are defaults for requests that leave a parameter absent.
	Parameters *Parameters
	// Timeout is the most time that a request may take, waiting included.
	Timeout *time.Duration
	// MaxRetries is the most retries of a request to a hosted provider, all before its first event.
	MaxRetries *int32
	// KeepAlive is the time that an idle local model stays in memory.
	KeepAlive *time.Duration
	// Quantization is the precision of a local model's weights.
	Quantization Quantization
	// ProviderOptions are options of the provider that are outside the contract, as [WithProviderOptions] takes them.
	// Numbers that the server returns are float64.
	ProviderOptions map[string]any
}

// ConfigChange is a change of an LLM's configuration.
type ConfigChange struct {
	// Config holds the new values.
	Config Config
	// Mask lists the paths to change, such as "system_prompt" and "parameters.temperature". A path in it that Config
	// leaves unset is cleared. Lists and maps, such as provider_options and parameters.stop, are replaced whole: no path
	// leads into them. An empty Mask stands for the paths that Config sets.
	Mask []string
	// Etag makes the change fail with ErrStaleConfig where the configuration has another etag by now. Where Etag is
	// empty, the change is made in any case.
	Etag string
	// ValidateOnly makes SetConfig return the configuration that the change would give, without changing it.
	ValidateOnly bool
}

// GetConfig returns the LLM's configuration on the server, and the etag to change it with. It needs the admin role.
func (r *RemoteLLM) GetConfig(ctx context.Context) (config *Config, etag string, err error) {
	response, err := callUnary(ctx, r, r.config.GetConfig, &pb.GetConfigRequest{Llm: r.name}, r.timeout)
	if err != nil {
		return nil, "", err
	}
	return decodeConfig(response.GetConfig()), response.GetEtag(), nil
}

// SetConfig changes the LLM's configuration on the server, for every caller of it, and returns the configuration after
// the change. It needs the admin role. This client's own defaults ([WithDefaults]) stay as they are.
func (r *RemoteLLM) SetConfig(ctx context.Context, change ConfigChange) (config *Config, etag string, err error) {
	encoded, err := encodeConfig(&change.Config)
	if err != nil {
		return nil, "", err
	}
	request := &pb.SetConfigRequest{
		Llm: r.name, Config: encoded, Etag: change.Etag, ValidateOnly: change.ValidateOnly,
	}
	if len(change.Mask) > 0 {
		request.UpdateMask = &fieldmaskpb.FieldMask{Paths: change.Mask}
	}
	response, err := callUnary(ctx, r, r.config.SetConfig, request, r.timeout)
	if err != nil {
		return nil, "", err
	}
	return decodeConfig(response.GetConfig()), response.GetEtag(), nil
}

func encodeConfig(config *Config) (*pb.LlmConfig, error) {
	encoded := &pb.LlmConfig{
		Model:        config.Model,
		SystemPrompt: config.SystemPrompt,
		Parameters:   config.Parameters.encode(),
		Timeout:      encodeDuration(config.Timeout),
		MaxRetries:   config.MaxRetries,
		KeepAlive:    encodeDuration(config.KeepAlive),
		Quantization: pb.Quantization(config.Quantization),
	}
	if config.ProviderOptions != nil {
		options, err := encodeObject(config.ProviderOptions, "provider_options")
		if err != nil {
			return nil, err
		}
		encoded.ProviderOptions = options
	}
	return encoded, nil
}

func decodeConfig(config *pb.LlmConfig) *Config {
	if config == nil {
		return &Config{}
	}
	decoded := &Config{
		Model:        config.Model,
		SystemPrompt: config.SystemPrompt,
		Parameters:   decodeParameters(config.Parameters),
		Timeout:      decodeDuration(config.Timeout),
		MaxRetries:   config.MaxRetries,
		KeepAlive:    decodeDuration(config.KeepAlive),
		Quantization: Quantization(config.Quantization),
	}
	if config.ProviderOptions != nil {
		decoded.ProviderOptions = config.ProviderOptions.AsMap()
	}
	return decoded
}
