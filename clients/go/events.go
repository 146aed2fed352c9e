package abstractllm

import pb "github.com/abstractllm/abstractllm-go/abstractllmv1"

// Event is one event of an answer as it comes: [Started], [TextDelta], [ReasoningDelta], [ToolCallDelta] or [Finished].
type Event interface {
	isEvent()
}

// Started is the first event. It comes with the first event of the LLM that answers.
type Started struct {
	// ID is the answer's id, made by the server.
	ID string
	// LLM, Provider and Model name what answers.
	LLM, Provider, Model string
	// DroppedParameters are the paths of the parameters that were left out under ParametersPolicyDropUnsupported.
	DroppedParameters []string
}

// TextDelta is a piece of the answer's text. The joined pieces are the answer.
type TextDelta struct {
	Text     string
	Logprobs []TokenLogprob
}

// ReasoningDelta is a piece of the model's reasoning.
type ReasoningDelta struct {
	Text string
}

// ToolCallDelta is a piece of a tool call.
//
// Index counts the tool calls of the answer from 0. ID and Name are set in the first piece of each tool call. The joined
// ArgumentsFragments are its ArgumentsJSON.
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
	// Message is the whole answer as a message, to be appended to the chat of the next turn.
	Message ChatMessage
}

func (Started) isEvent()        {}
func (TextDelta) isEvent()      {}
func (ReasoningDelta) isEvent() {}
func (ToolCallDelta) isEvent()  {}
func (Finished) isEvent()       {}

// decodeEvent returns nil for a kind of event that only a newer contract has.
func decodeEvent(response *pb.StreamGenerateResponse) Event {
	switch kind := response.GetEvent().(type) {
	case *pb.StreamGenerateResponse_Started:
		started := kind.Started
		return Started{
			ID:                started.GetId(),
			LLM:               started.GetLlm(),
			Provider:          started.GetProvider(),
			Model:             started.GetModel(),
			DroppedParameters: started.GetDroppedParameters(),
		}
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
