package abstractllm

import (
	"strings"
	"time"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
)

// Completion is a whole answer.
type Completion struct {
	// ID is the answer's id, made by the server; distinct from the caller's request id.
	ID string
	// Text is the answer's text parts, joined; without reasoning and tool calls.
	Text string
	// Message is the whole answer as a message, to be appended to the chat of the next turn.
	Message ChatMessage
	// FinishReason is the reason why the answer ended.
	FinishReason FinishReason
	// StopSequence is the stop text that ended the answer.
	StopSequence string
	// Usage is the number of tokens that the answer took.
	Usage Usage
	// LLM, Provider and Model name what answered.
	LLM, Provider, Model string
	// Attempts are the attempts at this answer, in order; the last one gave it.
	Attempts []Attempt
	// Timing is the time that the answer took.
	Timing Timing
	// Logprobs has one entry for each generated token; empty unless asked for.
	Logprobs []TokenLogprob
	// DroppedParameters are the paths of the parameters that were left out under ParametersPolicyDropUnsupported.
	DroppedParameters []string
}

// ToolCalls returns the tool calls that the model asks for.
func (c *Completion) ToolCalls() []ToolCall {
	var calls []ToolCall
	for _, part := range c.Message.Parts {
		if call, ok := part.(ToolCall); ok {
			calls = append(calls, call)
		}
	}
	return calls
}

// Reasoning returns the model's reasoning, joined; empty where the provider does not show it.
func (c *Completion) Reasoning() string {
	var joined strings.Builder
	for _, part := range c.Message.Parts {
		if reasoning, ok := part.(Reasoning); ok {
			joined.WriteString(reasoning.Text)
		}
	}
	return joined.String()
}

// Usage is the number of tokens that a request took; nil where the provider does not tell it.
type Usage struct {
	InputTokens, OutputTokens, CachedInputTokens, ReasoningTokens *int64
}

// Timing is the time that a request waited, and the times from its arrival to the first token and to the end; nil where
// it was not measured.
type Timing struct {
	Queued, FirstToken, Total *time.Duration
}

// Attempt is one attempt to get an answer.
type Attempt struct {
	LLM, Provider, Model string
	// ErrorReason is the reason of the failure; empty for the attempt that answered.
	ErrorReason ErrorReason
	// Message describes the failure.
	Message  string
	Duration time.Duration
}

// TokenLogprob is one token of the answer, and the likeliest tokens at its place.
type TokenLogprob struct {
	TopLogprob
	Top []TopLogprob
}

// TopLogprob is a token and its log-probability.
type TopLogprob struct {
	// TokenID is the token's number in the model's vocabulary; 0 where the provider does not tell it.
	TokenID int32
	// Token is the token as text; bytes that are not whole characters show as U+FFFD.
	Token string
	// TokenBytes are the token's exact bytes; empty where the provider does not tell them.
	TokenBytes []byte
	// Logprob is the natural logarithm of its probability.
	Logprob float64
}

func decodeCompletion(response *pb.GenerateResponse) *Completion {
	return &Completion{
		ID:                response.GetId(),
		Text:              response.GetText(),
		Message:           decodeMessage(response.GetMessage()),
		FinishReason:      FinishReason(response.GetFinishReason()),
		StopSequence:      response.GetStopSequence(),
		Usage:             decodeUsage(response.GetUsage()),
		LLM:               response.GetLlm(),
		Provider:          response.GetProvider(),
		Model:             response.GetModel(),
		Attempts:          decodeAttempts(response.GetAttempts()),
		Timing:            decodeTiming(response.GetTiming()),
		Logprobs:          decodeLogprobs(response.GetLogprobs()),
		DroppedParameters: response.GetDroppedParameters(),
	}
}

func decodeUsage(usage *pb.Usage) Usage {
	if usage == nil {
		return Usage{}
	}
	return Usage{usage.InputTokens, usage.OutputTokens, usage.CachedInputTokens, usage.ReasoningTokens}
}

func decodeTiming(timing *pb.Timing) Timing {
	return Timing{
		Queued:     decodeDuration(timing.GetQueued()),
		FirstToken: decodeDuration(timing.GetFirstToken()),
		Total:      decodeDuration(timing.GetTotal()),
	}
}

func decodeAttempts(attempts []*pb.Attempt) []Attempt {
	var decoded []Attempt
	for _, attempt := range attempts {
		decoded = append(decoded, Attempt{
			LLM:         attempt.GetLlm(),
			Provider:    attempt.GetProvider(),
			Model:       attempt.GetModel(),
			ErrorReason: decodeReason(attempt.GetErrorReason()),
			Message:     attempt.GetMessage(),
			Duration:    attempt.GetDuration().AsDuration(),
		})
	}
	return decoded
}

// decodeReason returns the name of a reason without its prefix, or the number of one that this version does not know.
func decodeReason(reason pb.ErrorReason) ErrorReason {
	if reason == pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return ""
	}
	return ErrorReason(strings.TrimPrefix(reason.String(), "ERROR_REASON_"))
}

func decodeLogprobs(entries []*pb.TokenLogprob) []TokenLogprob {
	var decoded []TokenLogprob
	for _, entry := range entries {
		token := TokenLogprob{
			TopLogprob: TopLogprob{entry.GetTokenId(), entry.GetToken(), entry.GetTokenBytes(), entry.GetLogprob()},
		}
		for _, top := range entry.GetTop() {
			alternative := TopLogprob{top.GetTokenId(), top.GetToken(), top.GetTokenBytes(), top.GetLogprob()}
			token.Top = append(token.Top, alternative)
		}
		decoded = append(decoded, token)
	}
	return decoded
}
