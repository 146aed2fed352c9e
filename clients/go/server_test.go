package abstractllm_test

import (
	"context"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/abstractllm/abstractllm-go"
	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// guard is the time after which a test gives up waiting for what should come at once.
const guard = 60 * time.Second

type (
	generateHandler = func(context.Context, *pb.GenerateRequest) (*pb.GenerateResponse, error)
	eventSender     = grpc.ServerStreamingServer[pb.StreamGenerateResponse]
	streamHandler   = func(*pb.GenerateRequest, eventSender) error
)

// server is a real gRPC server on the loopback interface whose handlers each test sets.
type server struct {
	pb.UnimplementedGenerationServiceServer
	generate generateHandler
	stream   streamHandler
	address  string
	entered  chan struct{}
	released chan struct{}

	mutex    sync.Mutex
	requests []proto.Message
	metadata []metadata.MD
}

// serve starts a server on a free port.
func serve(t *testing.T, options ...grpc.ServerOption) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	served := &server{
		address: listener.Addr().String(), entered: make(chan struct{}, 100), released: make(chan struct{}, 100),
	}
	served.serveOn(t, listener, nil, options...)
	return served
}

// serveOn starts the server on a listener until the test ends; register, where it is not nil, adds more services.
func (s *server) serveOn(t *testing.T, listener net.Listener, register func(*grpc.Server), options ...grpc.ServerOption) {
	t.Helper()
	options = append(options,
		grpc.MaxRecvMsgSize(2*abstractllm.MessageLimit), grpc.MaxSendMsgSize(2*abstractllm.MessageLimit),
		grpc.UnaryInterceptor(s.recordUnary), grpc.StreamInterceptor(s.recordStream))
	running := grpc.NewServer(options...)
	pb.RegisterGenerationServiceServer(running, s)
	if register != nil {
		register(running)
	}
	go func() { _ = running.Serve(listener) }()
	t.Cleanup(running.Stop)
}

func (s *server) Generate(ctx context.Context, request *pb.GenerateRequest) (*pb.GenerateResponse, error) {
	return s.generate(ctx, request)
}

func (s *server) StreamGenerate(request *pb.GenerateRequest, sender eventSender) error {
	return s.stream(request, sender)
}

func (s *server) CountTokens(context.Context, *pb.CountTokensRequest) (*pb.CountTokensResponse, error) {
	return &pb.CountTokensResponse{InputTokens: 42}, nil
}

func (s *server) record(ctx context.Context, request any) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	received, _ := metadata.FromIncomingContext(ctx)
	s.requests = append(s.requests, proto.Clone(request.(proto.Message)))
	s.metadata = append(s.metadata, received)
}

func (s *server) recordUnary(
	ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	s.record(ctx, request)
	return handler(ctx, request)
}

func (s *server) recordStream(
	service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	return handler(service, &recordedStream{stream, s})
}

type recordedStream struct {
	grpc.ServerStream
	server *server
}

func (r *recordedStream) RecvMsg(message any) error {
	err := r.ServerStream.RecvMsg(message)
	if err == nil {
		r.server.record(r.Context(), message)
	}
	return err
}

// calls returns the number of requests that were received.
func (s *server) calls() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return len(s.requests)
}

// last returns the request that was received last.
func (s *server) last() proto.Message {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.requests[len(s.requests)-1]
}

// lastMetadata returns the metadata of the last request.
func (s *server) lastMetadata() metadata.MD {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.metadata[len(s.metadata)-1]
}

// answerWith makes the server answer with a text.
func (s *server) answerWith(text string) {
	s.generate = func(context.Context, *pb.GenerateRequest) (*pb.GenerateResponse, error) {
		return &pb.GenerateResponse{Text: text}, nil
	}
	s.stream = func(_ *pb.GenerateRequest, sender eventSender) error {
		return send(sender, started(), delta(text), finished())
	}
}

// failWith makes the first calls fail, or all of them (always); later ones are answered with a text.
func (s *server) failWith(failure failure, times int, text string) {
	s.generate = func(ctx context.Context, _ *pb.GenerateRequest) (*pb.GenerateResponse, error) {
		if s.calls() <= times {
			return nil, failure.end(func(trailer metadata.MD) { _ = grpc.SetTrailer(ctx, trailer) })
		}
		return &pb.GenerateResponse{Text: text}, nil
	}
	s.stream = func(_ *pb.GenerateRequest, sender eventSender) error {
		if s.calls() <= times {
			return failure.end(sender.SetTrailer)
		}
		return send(sender, started(), delta(text), finished())
	}
}

// always is a number of failures that no test reaches.
const always = 1 << 30

// answerForever makes calls go on until they are cancelled. A unary call is announced on entered, the end of any call on
// released.
func (s *server) answerForever() {
	s.generate = func(ctx context.Context, _ *pb.GenerateRequest) (*pb.GenerateResponse, error) {
		s.entered <- struct{}{}
		<-ctx.Done()
		s.released <- struct{}{}
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	s.stream = func(_ *pb.GenerateRequest, sender eventSender) error {
		defer func() { s.released <- struct{}{} }()
		err := send(sender, started())
		for err == nil {
			err = send(sender, delta("on "))
			time.Sleep(time.Millisecond)
		}
		return err
	}
}

// awaitRelease waits until a call of answerForever is over at the server.
func (s *server) awaitRelease(t *testing.T) {
	t.Helper()
	select {
	case <-s.released:
	case <-time.After(guard):
		t.Fatal("the server goes on")
	}
}

// failure is the status that a call fails with, and its google.rpc details.
type failure struct {
	code       codes.Code
	message    string
	reason     string
	domain     string
	metadata   map[string]string
	fields     []string
	retryAfter time.Duration
	pushbackMs int
}

// end returns the error for a handler to return, and sets the pushback of the retries.
func (f failure) end(setTrailer func(metadata.MD)) error {
	var details []protoadapt.MessageV1
	if f.reason != "" {
		info := &errdetails.ErrorInfo{Reason: f.reason, Domain: f.domain, Metadata: f.metadata}
		if info.Domain == "" {
			info.Domain = "abstractllm"
		}
		details = append(details, info)
	}
	if f.fields != nil {
		bad := &errdetails.BadRequest{}
		for _, field := range f.fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: field})
		}
		details = append(details, bad)
	}
	if f.retryAfter != 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(f.retryAfter)})
	}
	if f.pushbackMs != 0 {
		setTrailer(metadata.Pairs("grpc-retry-pushback-ms", strconv.Itoa(f.pushbackMs)))
	}
	ended, err := status.New(f.code, f.message).WithDetails(details...)
	if err != nil {
		return err
	}
	return ended.Err()
}

func send(sender eventSender, events ...*pb.StreamGenerateResponse) error {
	for _, event := range events {
		if err := sender.Send(event); err != nil {
			return err
		}
	}
	return nil
}

func started() *pb.StreamGenerateResponse {
	return &pb.StreamGenerateResponse{Event: &pb.StreamGenerateResponse_Started{Started: &pb.Started{Id: "1"}}}
}

func delta(text string) *pb.StreamGenerateResponse {
	return &pb.StreamGenerateResponse{Event: &pb.StreamGenerateResponse_TextDelta{TextDelta: &pb.TextDelta{Text: text}}}
}

func finished() *pb.StreamGenerateResponse {
	ended := &pb.Finished{FinishReason: pb.FinishReason_FINISH_REASON_STOP}
	return &pb.StreamGenerateResponse{Event: &pb.StreamGenerateResponse_Finished{Finished: ended}}
}

// client returns a client that is closed when the test ends.
func client(t *testing.T, address string, options ...abstractllm.Option) *abstractllm.RemoteLLM {
	t.Helper()
	llm, err := abstractllm.NewRemoteLLM(address, options...)
	check(t, err)
	t.Cleanup(func() { _ = llm.Close() })
	return llm
}

// check ends the test where there is an error.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hi is the prompt of most tests.
const hi = abstractllm.String("Hi")

// generateAndStream answers a prompt whole and streamed, and returns the text and the error of each.
func generateAndStream(t *testing.T, llm *abstractllm.RemoteLLM, prompt abstractllm.Prompt) (texts []string, errs []error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	text, err := llm.Generate(ctx, prompt)
	texts, errs = append(texts, text), append(errs, err)
	text, err = "", nil
	for piece, failure := range llm.StreamText(ctx, prompt) {
		text, err = text+piece, failure
	}
	return append(texts, text), append(errs, err)
}
