package abstractllm_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/abstractllm/abstractllm-go"
	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
)

func retryableFailure(code codes.Code) failure {
	return failure{
		code: code, message: "again", reason: "OVERLOADED", retryAfter: 10 * time.Millisecond, pushbackMs: 10,
	}
}

func TestWhatCanBeRetriedIsRetried(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.ResourceExhausted} {
		server := serve(t)
		llm := client(t, server.address)
		server.failWith(retryableFailure(code), 4, "There")
		if text, err := llm.Generate(t.Context(), hi); text != "There" || err != nil || server.calls() != 5 {
			t.Errorf("%s: %q, %v after %d calls", code, text, err, server.calls())
		}
		server.failWith(retryableFailure(code), 9, "There")
		text := ""
		for piece, err := range llm.StreamText(t.Context(), hi) {
			check(t, err)
			text += piece
		}
		if text != "There" || server.calls() != 10 {
			t.Errorf("%s: %q after %d calls", code, text, server.calls())
		}
	}
}

func TestItGivesUpAfterFiveAttemptsWithTheServersOwnWords(t *testing.T) {
	server := serve(t)
	server.failWith(retryableFailure(codes.ResourceExhausted), always, "")
	for _, err := range errorsOf(t, server) {
		if err.Message != "again" || !hasClass(err, abstractllm.ErrOverloaded) || err.RetryAfter != 10*time.Millisecond {
			t.Errorf("got %+v", err)
		}
	}
	if server.calls() != 10 {
		t.Errorf("%d calls instead of 2 x 5", server.calls())
	}
}

func TestThePushbackIsWaitedFor(t *testing.T) {
	server := serve(t)
	llm := client(t, server.address)
	slowly := retryableFailure(codes.Unavailable)
	slowly.pushbackMs = 400 // twice what the policy itself would wait
	server.failWith(slowly, 1, "There")
	begin := time.Now()
	_, err := llm.Generate(t.Context(), hi)
	check(t, err)
	if waited := time.Since(begin); waited < 400*time.Millisecond {
		t.Errorf("tried again after %v", waited)
	}
}

func TestOtherCodesAreNotRetried(t *testing.T) {
	server := serve(t)
	server.failWith(failure{code: codes.Internal, message: "no"}, always, "")
	errorsOf(t, server)
	if server.calls() != 2 {
		t.Errorf("%d calls instead of 2", server.calls())
	}
}

func TestALargeRequestIsRetriedToo(t *testing.T) {
	server := serve(t)
	llm := client(t, server.address)
	prompt := abstractllm.String(strings.Repeat("x", abstractllm.MessageLimit-100))
	server.failWith(retryableFailure(codes.Unavailable), 1, "There")
	text, err := llm.Generate(t.Context(), prompt)
	if text != "There" || err != nil || server.calls() != 2 {
		t.Fatalf("%q, %v after %d calls", text, err, server.calls())
	}
	if size := len(server.last().(*pb.GenerateRequest).GetPrompt()); size != len(prompt) {
		t.Errorf("%d bytes came", size)
	}
}

func TestRetriesCanBeSwitchedOff(t *testing.T) {
	server := serve(t)
	server.failWith(retryableFailure(codes.Unavailable), always, "")
	errorsOf(t, server, abstractllm.WithDialOptions(grpc.WithDisableRetry()))
	if server.calls() != 2 {
		t.Errorf("%d calls instead of 2", server.calls())
	}
}

func TestCallsSurviveAServersRestart(t *testing.T) {
	first, second := &server{}, &server{}
	first.answerWith("first")
	second.answerWith("second")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	address := listener.Addr().String()
	running := grpc.NewServer()
	pb.RegisterGenerationServiceServer(running, first)
	go func() { _ = running.Serve(listener) }()
	llm := client(t, address)
	text, err := llm.Generate(t.Context(), hi)
	if text != "first" || err != nil {
		t.Fatalf("%q, %v", text, err)
	}
	running.Stop()
	time.AfterFunc(500*time.Millisecond, func() {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Errorf("cannot listen again: %v", err)
			return
		}
		second.serveOn(t, listener, nil)
	})
	if text, err := llm.Generate(t.Context(), hi); text != "second" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

func TestCallsSurviveAServersGoingAway(t *testing.T) {
	// Each connection is told to go after a moment, with GOAWAY.
	server := serve(t, grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge: 50 * time.Millisecond, MaxConnectionAgeGrace: guard,
	}))
	server.generate = func(ctx context.Context, request *pb.GenerateRequest) (*pb.GenerateResponse, error) {
		time.Sleep(5 * time.Millisecond)
		return &pb.GenerateResponse{Text: request.GetPrompt()}, nil
	}
	llm := client(t, server.address)
	for range 100 {
		if text, err := llm.Generate(t.Context(), hi); text != "Hi" || err != nil {
			t.Fatalf("%q, %v", text, err)
		}
	}
}
