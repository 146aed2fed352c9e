package abstractllm

import (
	"context"
	"iter"
	"strings"
	"time"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
)

// Generate answers a prompt and returns the answer's text.
func (r *RemoteLLM) Generate(ctx context.Context, prompt Prompt, options ...GenerateOption) (string, error) {
	completion, err := r.Complete(ctx, prompt, options...)
	if err != nil {
		return "", err
	}
	return completion.Text, nil
}

// Complete answers a prompt and returns the whole answer: its text, its message, its cost and the LLM that gave it.
func (r *RemoteLLM) Complete(ctx context.Context, prompt Prompt, options ...GenerateOption) (*Completion, error) {
	call, err := r.newGenerateCall(prompt, options)
	if err != nil {
		return nil, err
	}
	response, err := callUnary(ctx, r, r.generation.Generate, call.request, call.timeout)
	if err != nil {
		return nil, err
	}
	return decodeCompletion(response), nil
}

// Stream answers a prompt as events, [Started] first and [Finished] last. A failure is the last pair, beside a nil
// event; its PartialText is the text that came before.
//
// Each loop over the sequence is a call of its own. Leaving the loop ends the generation at the server.
func (r *RemoteLLM) Stream(ctx context.Context, prompt Prompt, options ...GenerateOption) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		call, err := r.newGenerateCall(prompt, options)
		if err != nil {
			yield(nil, err)
			return
		}
		var text strings.Builder
		finished := false
		for response, err := range callStream(ctx, r, r.generation.StreamGenerate, call.request, call.timeout) {
			if err != nil {
				err.PartialText = text.String()
				yield(nil, err)
				return
			}
			event := decodeEvent(response)
			switch event := event.(type) {
			case nil:
				continue
			case TextDelta:
				text.WriteString(event.Text)
			case Finished:
				finished = true
			}
			if !yield(event, nil) {
				return
			}
		}
		if !finished {
			err := newError(ReasonIncompleteStream, "the answer ended without a finish reason")
			err.PartialText = text.String()
			yield(nil, err)
		}
	}
}

// StreamText answers a prompt as pieces of text; all of them, joined, are the answer. It is [RemoteLLM.Stream] without
// the other events.
func (r *RemoteLLM) StreamText(ctx context.Context, prompt Prompt, options ...GenerateOption) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for event, err := range r.Stream(ctx, prompt, options...) {
			if err != nil {
				yield("", err)
				return
			}
			if delta, ok := event.(TextDelta); ok && delta.Text != "" && !yield(delta.Text, nil) {
				return
			}
		}
	}
}

// CountTokens counts the tokens of a prompt, special tokens and chat template included, without generating. It takes
// the options of [RemoteLLM.Generate]; only the system prompt, the tools and the model change the count.
func (r *RemoteLLM) CountTokens(ctx context.Context, prompt Prompt, options ...GenerateOption) (int64, error) {
	call, err := r.newGenerateCall(prompt, options)
	if err != nil {
		return 0, err
	}
	request := &pb.CountTokensRequest{
		Llm:          call.request.Llm,
		SystemPrompt: call.request.SystemPrompt,
		Tools:        call.request.Tools,
		Model:        call.parameters().Model,
	}
	switch input := call.request.Input.(type) {
	case *pb.GenerateRequest_Prompt:
		request.Input = &pb.CountTokensRequest_Prompt{Prompt: input.Prompt}
	case *pb.GenerateRequest_Chat:
		request.Input = &pb.CountTokensRequest_Chat{Chat: input.Chat}
	}
	response, err := callUnary(ctx, r, r.generation.CountTokens, request, call.timeout)
	return response.GetInputTokens(), err
}

// generateCall is one generation before it is sent. The options fill it in.
type generateCall struct {
	request *pb.GenerateRequest
	timeout time.Duration // 0: none
	err     error         // of the first option that cannot be encoded
}

// newGenerateCall encodes a generation: the prompt, then the client's defaults, then the options of the call.
func (r *RemoteLLM) newGenerateCall(prompt Prompt, options []GenerateOption) (*generateCall, error) {
	call := &generateCall{request: &pb.GenerateRequest{Llm: r.name}}
	switch prompt := prompt.(type) {
	case String:
		call.request.Input = &pb.GenerateRequest_Prompt{Prompt: string(prompt)}
	case Chat:
		chat, err := prompt.encode()
		if err != nil {
			return nil, err
		}
		call.request.Input = &pb.GenerateRequest_Chat{Chat: chat}
	default:
		return nil, invalidField("prompt", "a String or a Chat", "nil")
	}
	for _, option := range r.defaults {
		option(call)
	}
	for _, option := range options {
		option(call)
	}
	return call, call.err
}

// parameters returns the request's generation parameters, to be changed.
func (c *generateCall) parameters() *pb.GenerationParameters {
	if c.request.Parameters == nil {
		c.request.Parameters = &pb.GenerationParameters{}
	}
	return c.request.Parameters
}

// fail keeps the first error of the options; the call is not sent.
func (c *generateCall) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}
