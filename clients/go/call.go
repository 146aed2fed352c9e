package abstractllm

import (
	"context"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// callUnary sends a request and waits for the response. A timeout of 0 is none.
func callUnary[Request proto.Message, Response any](
	ctx context.Context,
	llm *RemoteLLM,
	method func(context.Context, Request, ...grpc.CallOption) (*Response, error),
	request Request,
	timeout time.Duration,
) (*Response, error) {
	if err := validateRequest(request, llm.messageLimit); err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, timeout)
	defer cancel()
	response, err := method(ctx, request)
	if err != nil {
		return nil, llm.callError(ctx, err)
	}
	return response, nil
}

// callStream sends a request and iterates over the responses. A failure is the last pair. Leaving the loop cancels the
// call. A timeout of 0 is none.
func callStream[Request proto.Message, Response any](
	ctx context.Context,
	llm *RemoteLLM,
	method func(context.Context, Request, ...grpc.CallOption) (grpc.ServerStreamingClient[Response], error),
	request Request,
	timeout time.Duration,
) iter.Seq2[*Response, *Error] {
	return func(yield func(*Response, *Error) bool) {
		if err := validateRequest(request, llm.messageLimit); err != nil {
			yield(nil, err)
			return
		}
		ctx, cancel := withTimeout(ctx, timeout)
		defer cancel()
		responses, err := method(ctx, request)
		for err == nil {
			var response *Response
			if response, err = responses.Recv(); err == nil && !yield(response, nil) {
				return
			}
		}
		if err != io.EOF {
			yield(nil, llm.callError(ctx, err))
		}
	}
}

// withTimeout returns a context that can be cancelled, and that ends after the timeout where it is above 0.
func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout > 0 {
		return context.WithTimeout(ctx, timeout)
	}
	return context.WithCancel(ctx)
}

// callError returns the error of a call of this client, given the error of gRPC and the context of the call.
func (r *RemoteLLM) callError(ctx context.Context, grpcError error) *Error {
	err := errorFromStatus(grpcError)
	code := err.status.Code()
	if r.closed.Load() && (code == codes.Canceled || code == codes.Unavailable) {
		return newError(ReasonCancelled, "the client is closed")
	}
	if code == codes.Canceled {
		err.contextError = ctx.Err() // nil where the server cancelled, and not the caller
	}
	return err
}
