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

// guard is when a test gives up waiting for what should come at once.
const guard = 60 * time.Second

type (
	generateHandler = func(context.Context, *pb.GenerateRequest) (*pb.GenerateResponse, error)
	eventSender     = grpc.ServerStreamingServer[pb.StreamGenerateResponse]
	streamHandler   = func(*pb.GenerateRequest, eventSender) error
)

// server is a real server on the loopback interface, whose answers each test writes.
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

// serve starts a server on a free port; services are those beside generation.
func serve(t *testing.T, options ...grpc.ServerOption) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	served := &server{
		address: listener.Addr().String(), entered: make(chan struct{}, 100), released: make(chan struct{}, 100),
	}
	served.on(t, listener, nil, options...)
	return served
}

func (server *server) on(t *testing.T, listener net.Listener, add func(*grpc.Server), options ...grpc.ServerOption) {
	t.Helper()
	options = append(options,
		grpc.MaxRecvMsgSize(2*abstractllm.MessageLimit), grpc.MaxSendMsgSize(2*abstractllm.MessageLimit),
		grpc.UnaryInterceptor(server.recordUnary), grpc.StreamInterceptor(server.recordStream))
	running := grpc.NewServer(options...)
	pb.RegisterGenerationServiceServer(running, server)
	if add != nil {
		add(running)
	}
	go func() { _ = running.Serve(listener) }()
	t.Cleanup(running.Stop)
}

func (server *server) Generate(ctx context.Context, request *pb.GenerateRequest) (*pb.GenerateResponse, error) {
	return server.generate(ctx, request)
}

func (server *server) StreamGenerate(request *pb.GenerateRequest, sender eventSender) error {
	return server.stream(request, sender)
}

func (server *server) CountTokens(context.Context, *pb.CountTokensRequest) (*pb.CountTokensResponse, error) {
	return &pb.CountTokensResponse{InputTokens: 42}, nil
}

func (server *server) record(ctx context.Context, request any) {
	server.mutex.Lock()
	defer server.mutex.Unlock()
	found, _ := metadata.FromIncomingContext(ctx)
	server.requests = append(server.requests, proto.Clone(request.(proto.Message)))
	server.metadata = append(server.metadata, found)
}

func (server *server) recordUnary(
	ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	server.record(ctx, request)
	return handler(ctx, request)
}

func (server *server) recordStream(
	service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	return handler(service, &recordedStream{stream, server})
}

type recordedStream struct {
	grpc.ServerStream
	server *server
}

func (stream *recordedStream) RecvMsg(message any) error {
	err := stream.ServerStream.RecvMsg(message)
	if err == nil {
		stream.server.record(stream.Context(), message)
	}
	return err
}

// calls counts the requests that came.
func (server *server) calls() int {
	server.mutex.Lock()
	defer server.mutex.Unlock()
	return len(server.requests)
}

// last is the request that came last.
func (server *server) last() proto.Message {
	server.mutex.Lock()
	defer server.mutex.Unlock()
	return server.requests[len(server.requests)-1]
}

// lastMetadata is what came beside the last request.
func (server *server) lastMetadata() metadata.MD {
	server.mutex.Lock()
	defer server.mutex.Unlock()
	return server.metadata[len(server.metadata)-1]
}

// say answers with a text.
func (server *server) say(text string) {
	server.generate = func(context.Context, *pb.GenerateRequest) (*pb.GenerateResponse, error) {
		return &pb.GenerateResponse{Text: text}, nil
	}
	server.stream = func(_ *pb.GenerateRequest, sender eventSender) error {
		return send(sender, started(), delta(text), finished())
	}
}

// fail answers with a failure, for ever or for the first calls.
func (server *server) fail(failure failure, times int, then string) {
	server.generate = func(ctx context.Context, _ *pb.GenerateRequest) (*pb.GenerateResponse, error) {
		if server.calls() <= times {
			return nil, failure.end(func(trailer metadata.MD) { _ = grpc.SetTrailer(ctx, trailer) })
		}
		return &pb.GenerateResponse{Text: then}, nil
	}
	server.stream = func(_ *pb.GenerateRequest, sender eventSender) error {
		if server.calls() <= times {
			return failure.end(sender.SetTrailer)
		}
		return send(sender, started(), delta(then), finished())
	}
}

const always = 1 << 30

// goOn answers for ever; entered tells when a whole answer was asked for, and released when any call is over.
func (server *server) goOn() {
	server.generate = func(ctx context.Context, _ *pb.GenerateRequest) (*pb.GenerateResponse, error) {
		server.entered <- struct{}{}
		<-ctx.Done()
		server.released <- struct{}{}
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	server.stream = func(_ *pb.GenerateRequest, sender eventSender) error {
		defer func() { server.released <- struct{}{} }()
		err := send(sender, started())
		for err == nil {
			err = send(sender, delta("on "))
			time.Sleep(time.Millisecond)
		}
		return err
	}
}

// awaitRelease waits until a call of goOn is over at the server.
func (server *server) awaitRelease(t *testing.T) {
	t.Helper()
	select {
	case <-server.released:
	case <-time.After(guard):
		t.Fatal("the server goes on")
	}
}

// failure is how a call ends in an error, and its google.rpc details.
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

func (failure failure) end(setTrailer func(metadata.MD)) error {
	var found []protoadapt.MessageV1
	if failure.reason != "" {
		info := &errdetails.ErrorInfo{Reason: failure.reason, Domain: failure.domain, Metadata: failure.metadata}
		if info.Domain == "" {
			info.Domain = "abstractllm"
		}
		found = append(found, info)
	}
	if failure.fields != nil {
		bad := &errdetails.BadRequest{}
		for _, field := range failure.fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: field})
		}
		found = append(found, bad)
	}
	if failure.retryAfter != 0 {
		found = append(found, &errdetails.RetryInfo{RetryDelay: durationpb.New(failure.retryAfter)})
	}
	if failure.pushbackMs != 0 {
		setTrailer(metadata.Pairs("grpc-retry-pushback-ms", strconv.Itoa(failure.pushbackMs)))
	}
	ended, err := status.New(failure.code, failure.message).WithDetails(found...)
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

// client makes a client that is closed with the test.
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

// hi is what most tests ask.
const hi = abstractllm.String("Hi")

// everyWay asks whole and streamed, and gives what was said and how each ended.
func everyWay(t *testing.T, llm *abstractllm.RemoteLLM, prompt abstractllm.Prompt) (texts []string, errs []error) {
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
