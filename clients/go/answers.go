package abstractllm

import (
	"strings"
	"time"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Completion is a whole answer.
type Completion struct {
	// ID is the answer's, made by the server; distinct from the caller's request id.
	ID string
	// Text is the answer's text parts, joined; without reasoning and tool calls.
	Text string
	// Message is the whole answer as a message, to be put into the next turn's conversation.
	Message ChatMessage
	// FinishReason tells why the answer ended.
	FinishReason FinishReason
	// StopSequence is the stop text that ended the answer.
	StopSequence string
	// Usage is the tokens that the answer took.
	Usage Usage
	// LLM, Provider and Model answered.
	LLM, Provider, Model string
	// Attempts are the tries at this answer, in order; the last one gave it.
	Attempts []Attempt
	// Timing tells where the time went.
	Timing Timing
	// Logprobs has one entry for each generated token; empty unless asked for.
	Logprobs []TokenLogprob
	// DroppedParameters are the paths of what was left out under ParametersPolicyDropUnsupported.
	DroppedParameters []string
}

// ToolCalls are the tools that the model asks to have called.
func (answer *Completion) ToolCalls() []ToolCall {
	var found []ToolCall
	for _, part := range answer.Message.Parts {
		if call, ok := part.(ToolCall); ok {
			found = append(found, call)
		}
	}
	return found
}

// Reasoning is what the model thought, where it says.
func (answer *Completion) Reasoning() string {
	var joined strings.Builder
	for _, part := range answer.Message.Parts {
		if reasoning, ok := part.(Reasoning); ok {
			joined.WriteString(reasoning.Text)
		}
	}
	return joined.String()
}

// Usage is the tokens that a request took; nil where the provider does not say.
type Usage struct {
	InputTokens, OutputTokens, CachedInputTokens, ReasoningTokens *int64
}

// Timing is the time from the request's arrival: spent waiting, to the first token, to the end; nil where not measured.
type Timing struct {
	Queued, FirstToken, Total *time.Duration
}

// Attempt is one try at answering a request.
type Attempt struct {
	LLM, Provider, Model string
	// ErrorReason tells why it failed; empty for the one that answered.
	ErrorReason ErrorReason
	// Message is the failure in words.
	Message  string
	Duration time.Duration
}

// TokenLogprob is the token that was chosen at a place of the answer, and the likeliest ones.
type TokenLogprob struct {
	TopLogprob
	Top []TopLogprob
}

// TopLogprob is one of the likeliest tokens at a place of the answer.
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

// Event is one event of an answer as it comes: [Started], [TextDelta], [ReasoningDelta], [ToolCallDelta] or [Finished].
type Event interface {
	isEvent()
}

// Started is the first event, sent with the LLM's first sign of an answer.
type Started struct {
	// ID is the answer's, made by the server.
	ID string
	// LLM, Provider and Model answer.
	LLM, Provider, Model string
	// DroppedParameters are the paths of what was left out under ParametersPolicyDropUnsupported.
	DroppedParameters []string
}

// TextDelta is a piece of the answer's text. The joined pieces are the answer.
type TextDelta struct {
	Text     string
	Logprobs []TokenLogprob
}

// ReasoningDelta is a piece of what the model thinks before it answers.
type ReasoningDelta struct {
	Text string
}

// ToolCallDelta is a piece of a tool call; ID and Name come with the first piece of each Index.
type ToolCallDelta struct {
	Index             int
	ID                string
	Name              string
	ArgumentsFragment string
}

// Finished is the last event, sent exactly once.
type Finished struct {
	FinishReason FinishReason
	// StopSequence is the stop text that ended the answer.
	StopSequence string
	Usage        Usage
	Attempts     []Attempt
	Timing       Timing
	// Message is the whole answer as a message, to be put into the next turn's conversation.
	Message ChatMessage
}

func (Started) isEvent()        {}
func (TextDelta) isEvent()      {}
func (ReasoningDelta) isEvent() {}
func (ToolCallDelta) isEvent()  {}
func (Finished) isEvent()       {}

func decodeCompletion(answer *pb.GenerateResponse) *Completion {
	return &Completion{
		ID:                answer.GetId(),
		Text:              answer.GetText(),
		Message:           decodeMessage(answer.GetMessage()),
		FinishReason:      FinishReason(answer.GetFinishReason()),
		StopSequence:      answer.GetStopSequence(),
		Usage:             decodeUsage(answer.GetUsage()),
		LLM:               answer.GetLlm(),
		Provider:          answer.GetProvider(),
		Model:             answer.GetModel(),
		Attempts:          decodeAttempts(answer.GetAttempts()),
		Timing:            decodeTiming(answer.GetTiming()),
		Logprobs:          decodeLogprobs(answer.GetLogprobs()),
		DroppedParameters: answer.GetDroppedParameters(),
	}
}

// decodeEvent gives nil for a kind of event that only newer contracts know.
func decodeEvent(message *pb.StreamGenerateResponse) Event {
	switch kind := message.GetEvent().(type) {
	case *pb.StreamGenerateResponse_Started:
		started := kind.Started
		who := Started{started.GetId(), started.GetLlm(), started.GetProvider(), started.GetModel(), nil}
		who.DroppedParameters = started.GetDroppedParameters()
		return who
	case *pb.StreamGenerateResponse_TextDelta:
		return TextDelta{kind.TextDelta.GetText(), decodeLogprobs(kind.TextDelta.GetLogprobs())}
	case *pb.StreamGenerateResponse_ReasoningDelta:
		return ReasoningDelta{kind.ReasoningDelta.GetText()}
	case *pb.StreamGenerateResponse_ToolCallDelta:
		delta := kind.ToolCallDelta
		return ToolCallDelta{int(delta.GetIndex()), delta.GetId(), delta.GetName(), delta.GetArgumentsFragment()}
	case *pb.StreamGenerateResponse_Finished:
		finished := kind.Finished
		return Finished{
			FinishReason: FinishReason(finished.GetFinishReason()),
			StopSequence: finished.GetStopSequence(),
			Usage:        decodeUsage(finished.GetUsage()),
			Attempts:     decodeAttempts(finished.GetAttempts()),
			Timing:       decodeTiming(finished.GetTiming()),
			Message:      decodeMessage(finished.GetMessage()),
		}
	}
	return nil
}

func decodeUsage(usage *pb.Usage) Usage {
	if usage == nil {
		return Usage{}
	}
	return Usage{usage.InputTokens, usage.OutputTokens, usage.CachedInputTokens, usage.ReasoningTokens}
}

func decodeTiming(timing *pb.Timing) Timing {
	return Timing{span(timing.GetQueued()), span(timing.GetFirstToken()), span(timing.GetTotal())}
}

func span(duration *durationpb.Duration) *time.Duration {
	if duration == nil {
		return nil
	}
	return new(duration.AsDuration())
}

func decodeAttempts(attempts []*pb.Attempt) []Attempt {
	var found []Attempt
	for _, attempt := range attempts {
		found = append(found, Attempt{
			LLM:         attempt.GetLlm(),
			Provider:    attempt.GetProvider(),
			Model:       attempt.GetModel(),
			ErrorReason: decodeReason(attempt.GetErrorReason()),
			Message:     attempt.GetMessage(),
			Duration:    attempt.GetDuration().AsDuration(),
		})
	}
	return found
}

func decodeReason(reason pb.ErrorReason) ErrorReason {
	if reason == pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return ""
	}
	return ErrorReason(strings.TrimPrefix(reason.String(), "ERROR_REASON_"))
}

func decodeLogprobs(entries []*pb.TokenLogprob) []TokenLogprob {
	var found []TokenLogprob
	for _, entry := range entries {
		token := TokenLogprob{
			TopLogprob: TopLogprob{entry.GetTokenId(), entry.GetToken(), entry.GetTokenBytes(), entry.GetLogprob()},
		}
		for _, top := range entry.GetTop() {
			likely := TopLogprob{top.GetTokenId(), top.GetToken(), top.GetTokenBytes(), top.GetLogprob()}
			token.Top = append(token.Top, likely)
		}
		found = append(found, token)
	}
	return found
}
