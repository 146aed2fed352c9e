package abstractllm

import (
	"context"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"time"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// RemoteLLM is one LLM of a server. It may be used by several goroutines at once.
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

// NewRemoteLLM makes a client; it connects with the first call.
//
// The address is host:port, unix:/path/of/a/socket, or dns:///name:port. Calls are spread over all addresses that a
// name has. The error is an ErrConfiguration for an address, token or certificate that cannot be one, or an
// ErrInvalidRequest for a default that cannot be one.
func NewRemoteLLM(address string, options ...Option) (*RemoteLLM, error) {
	settings := &settings{messageLimit: MessageLimit}
	for _, option := range options {
		option(settings)
	}
	conn, err := settings.connect(address)
	if err != nil {
		return nil, err
	}
	llm := &RemoteLLM{
		address:      address,
		name:         settings.llm,
		defaults:     settings.defaults,
		messageLimit: settings.messageLimit,
		conn:         conn,
		generation:   pb.NewGenerationServiceClient(conn),
		models:       pb.NewModelServiceClient(conn),
		config:       pb.NewConfigServiceClient(conn),
	}
	call, err := llm.newCall(String("checks the defaults"), nil)
	if err == nil {
		if fault := check(call.request, llm.messageLimit); fault != nil {
			err = fault
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	llm.timeout = call.timeout
	return llm, nil
}

// Address tells where the server is.
func (llm *RemoteLLM) Address() string { return llm.address }

// Name is the LLM's; empty for the server's default.
func (llm *RemoteLLM) Name() string { return llm.name }

// Conn is the channel of this client, to use the generated stubs of package abstractllmv1 on. [ErrorFrom] reads their
// errors.
func (llm *RemoteLLM) Conn() *grpc.ClientConn { return llm.conn }

// Close closes the connections; calls that run end with ErrGenerationCancelled.
func (llm *RemoteLLM) Close() error {
	if llm.closed.Swap(true) {
		return nil
	}
	return llm.conn.Close()
}

// Generate answers a prompt and returns the answer's text.
func (llm *RemoteLLM) Generate(ctx context.Context, prompt Prompt, options ...GenerateOption) (string, error) {
	answer, err := llm.Complete(ctx, prompt, options...)
	if err != nil {
		return "", err
	}
	return answer.Text, nil
}

// Complete answers a prompt and returns everything that there is to know of the answer.
func (llm *RemoteLLM) Complete(ctx context.Context, prompt Prompt, options ...GenerateOption) (*Completion, error) {
	call, err := llm.newCall(prompt, options)
	if err != nil {
		return nil, err
	}
	answer, err := unary(ctx, llm, llm.generation.Generate, call.request, call.timeout)
	if err != nil {
		return nil, err
	}
	return decodeCompletion(answer), nil
}

// Stream answers a prompt as events, [Started] first and [Finished] last. A failure is the last pair, beside a nil
// event; its PartialText is the text that came before.
//
// Each loop over the sequence is a call of its own. Leaving the loop ends the generation at the server.
func (llm *RemoteLLM) Stream(ctx context.Context, prompt Prompt, options ...GenerateOption) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		call, err := llm.newCall(prompt, options)
		if err != nil {
			yield(nil, err)
			return
		}
		var text strings.Builder
		finished := false
		for message, err := range stream(ctx, llm, llm.generation.StreamGenerate, call.request, call.timeout) {
			if err != nil {
				err.PartialText = text.String()
				yield(nil, err)
				return
			}
			event := decodeEvent(message)
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
func (llm *RemoteLLM) StreamText(
	ctx context.Context, prompt Prompt, options ...GenerateOption,
) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for event, err := range llm.Stream(ctx, prompt, options...) {
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

// CountTokens counts the tokens that a prompt takes, special tokens and chat template included. It takes the options of
// the generation that is meant: system prompt, tools and model count, the others play no part.
func (llm *RemoteLLM) CountTokens(ctx context.Context, prompt Prompt, options ...GenerateOption) (int64, error) {
	call, err := llm.newCall(prompt, options)
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
	answer, err := unary(ctx, llm, llm.generation.CountTokens, request, call.timeout)
	return answer.GetInputTokens(), err
}

// newCall encodes a generation: the client's defaults, then the call's own options.
func (llm *RemoteLLM) newCall(prompt Prompt, options []GenerateOption) (*generation, error) {
	call := &generation{request: &pb.GenerateRequest{Llm: llm.name}}
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
		return nil, refused("prompt", "a String or a Chat", "nil")
	}
	for _, option := range llm.defaults {
		option(call)
	}
	for _, option := range options {
		option(call)
	}
	return call, call.fault
}

// unary calls and waits. A timeout of 0 is none.
func unary[Request proto.Message, Answer any](
	ctx context.Context,
	llm *RemoteLLM,
	method func(context.Context, Request, ...grpc.CallOption) (*Answer, error),
	request Request,
	timeout time.Duration,
) (*Answer, error) {
	if err := check(request, llm.messageLimit); err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, timeout)
	defer cancel()
	answer, err := method(ctx, request)
	if err != nil {
		return nil, llm.failed(ctx, err)
	}
	return answer, nil
}

// stream calls and iterates; leaving the loop cancels the call. A timeout of 0 is none.
func stream[Request proto.Message, Message any](
	ctx context.Context,
	llm *RemoteLLM,
	method func(context.Context, Request, ...grpc.CallOption) (grpc.ServerStreamingClient[Message], error),
	request Request,
	timeout time.Duration,
) iter.Seq2[*Message, *Error] {
	return func(yield func(*Message, *Error) bool) {
		if err := check(request, llm.messageLimit); err != nil {
			yield(nil, err)
			return
		}
		ctx, cancel := withTimeout(ctx, timeout)
		defer cancel()
		messages, err := method(ctx, request)
		for err == nil {
			var message *Message
			if message, err = messages.Recv(); err == nil && !yield(message, nil) {
				return
			}
		}
		if err != io.EOF {
			yield(nil, llm.failed(ctx, err))
		}
	}
}

func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout > 0 {
		return context.WithTimeout(ctx, timeout)
	}
	return context.WithCancel(ctx)
}
