package abstractllm

import (
	"context"
	"time"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// Config is what of an LLM can be changed on a running server. What is nil, empty or zero is not set.
type Config struct {
	// Model is one that the server's configuration file lists for this LLM.
	Model string
	// SystemPrompt is for requests that bring none.
	SystemPrompt *string
	// Parameters are defaults for requests that leave a parameter absent.
	Parameters *Parameters
	// Timeout is the most time that a request may take, waiting included.
	Timeout *time.Duration
	// MaxRetries is how often a request to a hosted provider is retried before its first event.
	MaxRetries *int32
	// KeepAlive is how long an idle local model stays in memory.
	KeepAlive *time.Duration
	// Quantization is the precision of a local model's weights.
	Quantization Quantization
	// ProviderOptions are settings outside the contract, as WithProviderOptions takes them; numbers come back as float64.
	ProviderOptions map[string]any
}

// Parameters are an LLM's defaults for generation; what is nil or empty is not set. The options of the same names tell
// what they mean.
type Parameters struct {
	Temperature, TopP                                    *float64
	TopK                                                 *int32
	MinP                                                 *float64
	MaxTokens                                            *int32
	Seed                                                 *int64
	PresencePenalty, FrequencyPenalty, RepetitionPenalty *float64
	Stop                                                 []string
	LogitBias                                            map[int32]float64
	TopLogprobs                                          *int32
	// ReasoningEffort is 0 where it is not set.
	ReasoningEffort ReasoningEffort
}

// ConfigChange is a change of an LLM's configuration.
type ConfigChange struct {
	// Config holds the new values.
	Config Config
	// Mask holds the paths to change, such as "system_prompt" and "parameters.temperature"; one that Config leaves unset
	// is cleared. Paths stop at provider_options, parameters.stop and parameters.logit_bias, which are replaced whole.
	// Empty: what Config sets.
	Mask []string
	// Etag makes the change fail with ErrStaleConfig where it is not the current one; empty: change it regardless.
	Etag string
	// ValidateOnly only checks the change, and returns what it would give.
	ValidateOnly bool
}

// GetConfig reads the LLM's configuration on the server, and the etag to change it with. It needs the admin role.
func (llm *RemoteLLM) GetConfig(ctx context.Context) (config *Config, etag string, err error) {
	answer, err := unary(ctx, llm, llm.config.GetConfig, &pb.GetConfigRequest{Llm: llm.name}, llm.timeout)
	if err != nil {
		return nil, "", err
	}
	return decodeConfig(answer.GetConfig()), answer.GetEtag(), nil
}

// SetConfig changes the LLM's configuration on the server, for every caller of it, and returns the configuration after
// the change. It needs the admin role. This client's own defaults ([WithDefaults]) stay as they are.
func (llm *RemoteLLM) SetConfig(ctx context.Context, change ConfigChange) (config *Config, etag string, err error) {
	encoded, err := encodeConfig(&change.Config)
	if err != nil {
		return nil, "", err
	}
	request := &pb.SetConfigRequest{
		Llm: llm.name, Config: encoded, Etag: change.Etag, ValidateOnly: change.ValidateOnly,
	}
	if len(change.Mask) > 0 {
		request.UpdateMask = &fieldmaskpb.FieldMask{Paths: change.Mask}
	}
	answer, err := unary(ctx, llm, llm.config.SetConfig, request, llm.timeout)
	if err != nil {
		return nil, "", err
	}
	return decodeConfig(answer.GetConfig()), answer.GetEtag(), nil
}

func encodeConfig(config *Config) (*pb.LlmConfig, error) {
	encoded := &pb.LlmConfig{
		Model:        config.Model,
		SystemPrompt: config.SystemPrompt,
		Timeout:      encodeSpan(config.Timeout),
		MaxRetries:   config.MaxRetries,
		KeepAlive:    encodeSpan(config.KeepAlive),
		Quantization: pb.Quantization(config.Quantization),
	}
	if config.ProviderOptions != nil {
		options, err := object(config.ProviderOptions, "provider_options")
		if err != nil {
			return nil, err
		}
		encoded.ProviderOptions = options
	}
	if parameters := config.Parameters; parameters != nil {
		encoded.Parameters = &pb.GenerationParameters{
			Temperature:       parameters.Temperature,
			TopP:              parameters.TopP,
			TopK:              parameters.TopK,
			MinP:              parameters.MinP,
			MaxTokens:         parameters.MaxTokens,
			Seed:              parameters.Seed,
			PresencePenalty:   parameters.PresencePenalty,
			FrequencyPenalty:  parameters.FrequencyPenalty,
			RepetitionPenalty: parameters.RepetitionPenalty,
			Stop:              parameters.Stop,
			LogitBias:         parameters.LogitBias,
			TopLogprobs:       parameters.TopLogprobs,
		}
		if parameters.ReasoningEffort != 0 {
			encoded.Parameters.ReasoningEffort = new(pb.ReasoningEffort(parameters.ReasoningEffort))
		}
	}
	return encoded, nil
}

func decodeConfig(config *pb.LlmConfig) *Config {
	if config == nil {
		return &Config{}
	}
	found := &Config{
		Model:        config.Model,
		SystemPrompt: config.SystemPrompt,
		Timeout:      span(config.Timeout),
		MaxRetries:   config.MaxRetries,
		KeepAlive:    span(config.KeepAlive),
		Quantization: Quantization(config.Quantization),
	}
	if config.ProviderOptions != nil {
		found.ProviderOptions = config.ProviderOptions.AsMap()
	}
	if parameters := config.Parameters; parameters != nil {
		found.Parameters = &Parameters{
			Temperature:       parameters.Temperature,
			TopP:              parameters.TopP,
			TopK:              parameters.TopK,
			MinP:              parameters.MinP,
			MaxTokens:         parameters.MaxTokens,
			Seed:              parameters.Seed,
			PresencePenalty:   parameters.PresencePenalty,
			FrequencyPenalty:  parameters.FrequencyPenalty,
			RepetitionPenalty: parameters.RepetitionPenalty,
			Stop:              parameters.Stop,
			LogitBias:         parameters.LogitBias,
			TopLogprobs:       parameters.TopLogprobs,
			ReasoningEffort:   ReasoningEffort(parameters.GetReasoningEffort()),
		}
	}
	return found
}

func encodeSpan(span *time.Duration) *durationpb.Duration {
	if span == nil {
		return nil
	}
	return durationpb.New(*span)
}
