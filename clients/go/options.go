package abstractllm

import (
	"strconv"
	"time"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
)

// GenerateOption is a setting of a generation. What is not set is the LLM's own default, never zero; whether a value is
// in range is the server's to say.
type GenerateOption func(*generation)

// generation is a request in the making.
type generation struct {
	request *pb.GenerateRequest
	timeout time.Duration
	fault   error
}

func (call *generation) parameters() *pb.GenerationParameters {
	if call.request.Parameters == nil {
		call.request.Parameters = &pb.GenerationParameters{}
	}
	return call.request.Parameters
}

func (call *generation) refuse(err error) {
	if call.fault == nil {
		call.fault = err
	}
}

// WithSystemPrompt gives instructions that replace the conversation's own system messages.
func WithSystemPrompt(text string) GenerateOption {
	return func(call *generation) { call.request.SystemPrompt = &text }
}

// WithModel asks another model of the same LLM, one that its configuration lists.
func WithModel(name string) GenerateOption {
	return func(call *generation) { call.parameters().Model = &name }
}

// WithTemperature sets the sampling temperature, from 0 to 2; 0 always takes the likeliest token.
func WithTemperature(value float64) GenerateOption {
	return func(call *generation) { call.parameters().Temperature = &value }
}

// WithTopP samples from the smallest set of tokens with this total probability; above 0, up to 1 (off).
func WithTopP(value float64) GenerateOption {
	return func(call *generation) { call.parameters().TopP = &value }
}

// WithTopK samples among this many likeliest tokens only; 0 keeps every token.
func WithTopK(value int32) GenerateOption {
	return func(call *generation) { call.parameters().TopK = &value }
}

// WithMinP drops tokens less likely than this fraction of the likeliest one; from 0 (off) to 1.
func WithMinP(value float64) GenerateOption {
	return func(call *generation) { call.parameters().MinP = &value }
}

// WithMaxTokens bounds the tokens to generate, reasoning included.
func WithMaxTokens(value int32) GenerateOption {
	return func(call *generation) { call.parameters().MaxTokens = &value }
}

// WithSeed makes sampling repeatable, as far as the provider can.
func WithSeed(value int64) GenerateOption {
	return func(call *generation) { call.parameters().Seed = &value }
}

// WithPresencePenalty lowers the logits of tokens already generated, once each; from -2 to 2.
func WithPresencePenalty(value float64) GenerateOption {
	return func(call *generation) { call.parameters().PresencePenalty = &value }
}

// WithFrequencyPenalty lowers the logits of tokens already generated, once per occurrence; from -2 to 2.
func WithFrequencyPenalty(value float64) GenerateOption {
	return func(call *generation) { call.parameters().FrequencyPenalty = &value }
}

// WithRepetitionPenalty divides positive, and multiplies negative, logits of tokens already seen; above 0 to 10, 1 is
// off.
func WithRepetitionPenalty(value float64) GenerateOption {
	return func(call *generation) { call.parameters().RepetitionPenalty = &value }
}

// WithStop names texts that end the answer and are not part of it.
func WithStop(texts ...string) GenerateOption {
	return func(call *generation) { call.parameters().Stop = texts }
}

// WithLogitBias adds to the logits of tokens, by token id of the LLM's own vocabulary; from -100 to 100.
func WithLogitBias(biases map[int32]float64) GenerateOption {
	return func(call *generation) { call.parameters().LogitBias = biases }
}

// WithTopLogprobs asks for log-probabilities, and for this many of the likeliest alternatives of each token; 0 lists
// the sampled token's own alone.
func WithTopLogprobs(count int32) GenerateOption {
	return func(call *generation) { call.parameters().TopLogprobs = &count }
}

// WithReasoningEffort tells how long a reasoning model may think before it answers.
func WithReasoningEffort(effort ReasoningEffort) GenerateOption {
	return func(call *generation) { call.parameters().ReasoningEffort = new(pb.ReasoningEffort(effort)) }
}

// WithResponseFormat holds the answer to a form.
func WithResponseFormat(format ResponseFormat) GenerateOption {
	return func(call *generation) {
		if format == nil {
			call.refuse(refused("response_format", "one of the formats", "nil"))
			return
		}
		call.request.ResponseFormat = format.encodeFormat()
	}
}

// WithTools names the functions that the model may ask to have called.
func WithTools(tools ...Tool) GenerateOption {
	return func(call *generation) {
		call.request.Tools = nil
		for _, tool := range tools {
			call.request.Tools = append(call.request.Tools, &pb.Tool{
				Name:                 tool.Name,
				Description:          tool.Description,
				ParametersJsonSchema: tool.ParametersJSONSchema,
			})
		}
	}
}

// WithToolChoice tells whether, or which, tool must be called.
func WithToolChoice(choice ToolChoice) GenerateOption {
	return func(call *generation) {
		encoded := &pb.ToolChoice{}
		switch {
		case choice.Name != "" && choice.Mode != 0:
			call.refuse(refused("tool_choice", "a mode or a name, not both", choice.Mode.String()+" and "+choice.Name))
		case choice.Name != "":
			encoded.Choice = &pb.ToolChoice_Name{Name: choice.Name}
		case choice.Mode != 0:
			encoded.Choice = &pb.ToolChoice_Mode{Mode: pb.ToolChoiceMode(choice.Mode)}
		}
		call.request.ToolChoice = encoded
	}
}

// WithProviderOptions sets what is outside the contract, by the keys that the LLM's provider lists
// (Capabilities.ProviderOptions). Values are those of encoding/json, and whatever slices and maps from strings hold
// them.
func WithProviderOptions(options map[string]any) GenerateOption {
	return func(call *generation) {
		encoded, err := object(options, "provider_options")
		if err != nil {
			call.refuse(err)
		}
		call.request.ProviderOptions = encoded
	}
}

// WithRequestID sets the caller's own id for logs, traces and errors, at most 256 characters. It does not deduplicate.
func WithRequestID(id string) GenerateOption {
	return func(call *generation) { call.request.RequestId = id }
}

// WithLabels sets the caller's labels for logs and traces, at most 32.
func WithLabels(labels map[string]string) GenerateOption {
	return func(call *generation) { call.request.Labels = labels }
}

// WithParametersPolicy tells what happens to parameters that the LLM does not support.
func WithParametersPolicy(policy ParametersPolicy) GenerateOption {
	return func(call *generation) { call.request.ParametersPolicy = pb.ParametersPolicy(policy) }
}

// WithTimeout bounds the whole call, waiting and retries included. The context's own deadline holds too.
func WithTimeout(timeout time.Duration) GenerateOption {
	return func(call *generation) {
		if timeout <= 0 {
			call.refuse(refused("timeout", "greater than 0 seconds", strconv.FormatFloat(timeout.Seconds(), 'g', -1, 64)))
		}
		call.timeout = timeout
	}
}
