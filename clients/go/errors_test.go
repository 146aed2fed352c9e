package abstractllm_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/abstractllm/abstractllm-go"
	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	spb "google.golang.org/genproto/googleapis/rpc/status"
)

var table = []struct {
	reason    abstractllm.ErrorReason
	class     error
	code      codes.Code
	retryable bool
}{
	{"INVALID_REQUEST", abstractllm.ErrInvalidRequest, codes.InvalidArgument, false},
	{"UNSUPPORTED_PARAMETER", abstractllm.ErrUnsupportedParameter, codes.InvalidArgument, false},
	{"CONTEXT_LENGTH_EXCEEDED", abstractllm.ErrContextLengthExceeded, codes.InvalidArgument, false},
	{"MESSAGE_TOO_LARGE", abstractllm.ErrInvalidRequest, codes.ResourceExhausted, false},
	{"UNSUPPORTED_FEATURE", abstractllm.ErrUnsupportedFeature, codes.Unimplemented, false},
	{"UNKNOWN_LLM", abstractllm.ErrUnknownLLM, codes.NotFound, false},
	{"MODEL_NOT_FOUND", abstractllm.ErrModelNotFound, codes.NotFound, false},
	{"UNAUTHENTICATED", abstractllm.ErrAuthentication, codes.Unauthenticated, false},
	{"NOT_ALLOWED", abstractllm.ErrPermissionDenied, codes.PermissionDenied, false},
	{"PROVIDER_CREDENTIALS", abstractllm.ErrProviderCredentials, codes.FailedPrecondition, false},
	{"NOT_CONFIGURED", abstractllm.ErrConfiguration, codes.FailedPrecondition, false},
	{"MODEL_LOAD_FAILED", abstractllm.ErrModelLoad, codes.FailedPrecondition, false},
	{"MODEL_IN_USE", abstractllm.ErrModelInUse, codes.FailedPrecondition, false},
	{"CONTENT_BLOCKED", abstractllm.ErrContentBlocked, codes.FailedPrecondition, false},
	{"RATE_LIMITED", abstractllm.ErrRateLimited, codes.ResourceExhausted, true},
	{"OVERLOADED", abstractllm.ErrOverloaded, codes.ResourceExhausted, true},
	{"QUOTA_EXCEEDED", abstractllm.ErrQuotaExceeded, codes.ResourceExhausted, false},
	{"PROVIDER_UNAVAILABLE", abstractllm.ErrProviderUnavailable, codes.Unavailable, true},
	{"PROVIDER_PROTOCOL", abstractllm.ErrProviderProtocol, codes.Unavailable, true},
	{"INCOMPLETE_STREAM", abstractllm.ErrIncompleteStream, codes.Unavailable, false},
	{"ENGINE_CRASHED", abstractllm.ErrEngineCrashed, codes.Unavailable, true},
	{"SHUTTING_DOWN", abstractllm.ErrServerShuttingDown, codes.Unavailable, true},
	{"TIMEOUT", abstractllm.ErrGenerationTimeout, codes.DeadlineExceeded, false},
	{"CANCELLED", abstractllm.ErrGenerationCancelled, codes.Canceled, false},
	{"STALE_CONFIG", abstractllm.ErrStaleConfig, codes.Aborted, false},
	{"INTERNAL", abstractllm.ErrInternal, codes.Internal, false},
	{"UPSTREAM_REJECTED", abstractllm.ErrUpstreamRejected, codes.FailedPrecondition, false},
}

// errorsOf generates whole and streamed, and returns the errors.
func errorsOf(t *testing.T, server *server, options ...abstractllm.Option) []*abstractllm.Error {
	t.Helper()
	_, errs := generateAndStream(t, client(t, server.address, options...), hi)
	var converted []*abstractllm.Error
	for _, err := range errs {
		failure, ok := errors.AsType[*abstractllm.Error](err)
		if !ok {
			t.Fatalf("not an error of the client: %v", err)
		}
		converted = append(converted, failure)
	}
	return converted
}

// hasClass reports whether an error is of this class and of no other.
func hasClass(err error, class error) bool {
	classes := []error{}
	for _, row := range table {
		if errors.Is(err, row.class) && !slices.Contains(classes, row.class) {
			classes = append(classes, row.class)
		}
	}
	return len(classes) == 1 && classes[0] == class
}

func TestTheTableCoversEveryReasonOfTheContract(t *testing.T) {
	if len(table) != len(pb.ErrorReason_name)-1 {
		t.Errorf("%d rows for %d reasons", len(table), len(pb.ErrorReason_name)-1)
	}
	for _, row := range table {
		if _, ok := pb.ErrorReason_value["ERROR_REASON_"+string(row.reason)]; !ok {
			t.Errorf("%s is not a reason", row.reason)
		}
	}
}

func TestEveryReasonBecomesItsError(t *testing.T) {
	facts := map[string]string{
		"request_id": "r1", "llm": "gpt", "provider": "openai", "model": "m", "upstream_status": "429",
		"field": "prompt", "limit": "512", "requested": "at least 600", "output_tokens": "3",
	}
	for _, row := range table {
		t.Run(string(row.reason), func(t *testing.T) {
			server := serve(t)
			ending := failure{code: row.code, message: "no luck", reason: string(row.reason), metadata: facts, pushbackMs: -1}
			if row.retryable {
				ending.retryAfter = 1250 * time.Millisecond
			}
			server.failWith(ending, always, "")
			for _, err := range errorsOf(t, server) {
				want := abstractllm.Error{
					Reason: row.reason, Message: "no luck", Retryable: row.retryable, RetryAfter: ending.retryAfter,
					Provider: "openai", LLM: "gpt", Model: "m", UpstreamStatus: 429, RequestID: "r1",
					Field: "prompt", Limit: "512", Requested: "at least 600", OutputTokens: err.OutputTokens,
				}
				if !hasClass(err, row.class) || !sameFacts(err, &want) || *err.OutputTokens != 3 {
					t.Errorf("got %+v", err)
				}
				if status.Code(err) != row.code || len(status.Convert(err).Details()) == 0 {
					t.Errorf("the status is lost: %v", status.Convert(err))
				}
			}
			if server.calls() != 2 {
				t.Errorf("%d calls instead of 2: a pushback of -1 was not obeyed", server.calls())
			}
		})
	}
}

func sameFacts(left, right *abstractllm.Error) bool {
	return left.Reason == right.Reason && left.Message == right.Message && left.Retryable == right.Retryable &&
		left.RetryAfter == right.RetryAfter && left.Provider == right.Provider && left.LLM == right.LLM &&
		left.Model == right.Model && left.UpstreamStatus == right.UpstreamStatus && left.RequestID == right.RequestID &&
		left.Field == right.Field && left.Limit == right.Limit && left.Requested == right.Requested &&
		left.PartialText == right.PartialText
}

func TestAStatusWithoutDetailsIsJudgedByItsCode(t *testing.T) {
	for code, class := range map[codes.Code]error{
		codes.InvalidArgument:    abstractllm.ErrInvalidRequest,
		codes.OutOfRange:         abstractllm.ErrInvalidRequest,
		codes.NotFound:           abstractllm.ErrUnknownLLM,
		codes.Unimplemented:      abstractllm.ErrUnsupportedFeature,
		codes.Unauthenticated:    abstractllm.ErrAuthentication,
		codes.PermissionDenied:   abstractllm.ErrPermissionDenied,
		codes.FailedPrecondition: abstractllm.ErrConfiguration,
		codes.ResourceExhausted:  abstractllm.ErrOverloaded,
		codes.Unavailable:        abstractllm.ErrProviderUnavailable,
		codes.DeadlineExceeded:   abstractllm.ErrGenerationTimeout,
		codes.Canceled:           abstractllm.ErrGenerationCancelled,
		codes.Aborted:            abstractllm.ErrStaleConfig,
		codes.AlreadyExists:      abstractllm.ErrInternal,
		codes.Unknown:            abstractllm.ErrInternal,
		codes.Internal:           abstractllm.ErrInternal,
		codes.DataLoss:           abstractllm.ErrInternal,
	} {
		server := serve(t)
		server.failWith(failure{code: code, message: "bare", pushbackMs: -1}, always, "")
		for _, err := range errorsOf(t, server) {
			if !hasClass(err, class) || err.Retryable != (code == codes.Unavailable) || err.Message != "bare" {
				t.Errorf("%s: got %+v", code, err)
			}
		}
	}
}

func TestAnErrorInfoOfAnotherDomainIsNotOurs(t *testing.T) {
	server := serve(t)
	server.failWith(failure{code: codes.PermissionDenied, reason: "RATE_LIMITED", domain: "proxy.example"}, always, "")
	for _, err := range errorsOf(t, server) {
		if !hasClass(err, abstractllm.ErrPermissionDenied) || err.Reason != abstractllm.ReasonNotAllowed {
			t.Errorf("got %+v", err)
		}
	}
}

func TestAReasonFromTheFutureKeepsItsNameAndIsJudgedByItsCode(t *testing.T) {
	server := serve(t)
	server.failWith(failure{code: codes.FailedPrecondition, reason: "MOON_PHASE"}, always, "")
	for _, err := range errorsOf(t, server) {
		if !hasClass(err, abstractllm.ErrConfiguration) || err.Reason != "MOON_PHASE" || err.Retryable {
			t.Errorf("got %+v", err)
		}
	}
	soon := 2 * time.Second
	later := failure{code: codes.ResourceExhausted, reason: "MOON_PHASE", retryAfter: soon, pushbackMs: -1}
	server.failWith(later, always, "")
	for _, err := range errorsOf(t, server) {
		if !hasClass(err, abstractllm.ErrOverloaded) || !err.Retryable || err.RetryAfter != soon {
			t.Errorf("got %+v", err)
		}
	}
}

func TestTheFirstBadFieldNamesTheErrorWhereTheInfoDoesNot(t *testing.T) {
	server := serve(t)
	fields := []string{"labels.a", "labels.b"}
	server.failWith(failure{code: codes.InvalidArgument, reason: "INVALID_REQUEST", fields: fields}, always, "")
	for _, err := range errorsOf(t, server) {
		if err.Field != "labels.a" {
			t.Errorf("got %+v", err)
		}
	}
}

func TestBrokenDetailsDoNotHideTheStatus(t *testing.T) {
	broken := &anypb.Any{TypeUrl: "type.googleapis.com/google.rpc.ErrorInfo", Value: []byte{0xff, 0xff}}
	unheardOf := &anypb.Any{TypeUrl: "type.googleapis.com/unheard.Of", Value: []byte("new")}
	details := &spb.Status{Code: int32(codes.NotFound), Message: "gone", Details: []*anypb.Any{broken, unheardOf}}
	for name, end := range map[string]func(ctx context.Context) error{
		"a detail": func(context.Context) error { return status.FromProto(details).Err() },
		"all of them": func(ctx context.Context) error {
			_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-status-details-bin", "\xff\xff\xff"))
			return status.Error(codes.NotFound, "gone")
		},
	} {
		server := serve(t)
		server.generate = func(ctx context.Context, _ *pb.GenerateRequest) (*pb.GenerateResponse, error) {
			return nil, end(ctx)
		}
		server.stream = func(_ *pb.GenerateRequest, sender eventSender) error { return end(sender.Context()) }
		for _, err := range errorsOf(t, server) {
			if !hasClass(err, abstractllm.ErrUnknownLLM) || err.Message != "gone" {
				t.Errorf("%s: got %+v", name, err)
			}
		}
	}
}

func TestAnErrorWithinAStreamTellsTheTextThatCame(t *testing.T) {
	server := serve(t)
	broke := failure{code: codes.Unavailable, message: "broke", reason: "ENGINE_CRASHED", pushbackMs: 10}
	server.stream = func(_ *pb.GenerateRequest, sender eventSender) error {
		check(t, send(sender, started(), delta("Once "), delta("upon")))
		return broke.end(sender.SetTrailer)
	}
	text := ""
	var last error
	for piece, err := range client(t, server.address).StreamText(t.Context(), hi) {
		text, last = text+piece, err
	}
	failure, _ := errors.AsType[*abstractllm.Error](last)
	if text != "Once upon" || !hasClass(last, abstractllm.ErrEngineCrashed) || failure.PartialText != text {
		t.Errorf("got %q, then %+v", text, last)
	}
	if server.calls() != 1 {
		t.Errorf("a stream that had begun was tried %d times", server.calls())
	}
}

func TestAStreamThatEndsWellWithoutFinishedIsIncomplete(t *testing.T) {
	server := serve(t)
	server.stream = func(_ *pb.GenerateRequest, sender eventSender) error {
		return send(sender, started(), delta("Once"))
	}
	var last error
	for _, err := range client(t, server.address).Stream(t.Context(), hi) {
		last = err
	}
	failure, _ := errors.AsType[*abstractllm.Error](last)
	if !hasClass(last, abstractllm.ErrIncompleteStream) || failure.PartialText != "Once" || failure.Retryable {
		t.Errorf("got %+v", last)
	}
}

func TestMethodsThatTheServerLacksAreUnsupportedFeatures(t *testing.T) {
	llm := client(t, serve(t).address)
	for _, err := range llm.PullModel(t.Context(), "") {
		if !hasClass(err, abstractllm.ErrUnsupportedFeature) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := llm.ListLLMs(t.Context()); !hasClass(err, abstractllm.ErrUnsupportedFeature) {
		t.Errorf("got %v", err)
	}
}

func TestNobodyListeningIsUnavailable(t *testing.T) {
	without := abstractllm.WithDialOptions(grpc.WithDisableRetry())
	for _, err := range errorsOf(t, &server{address: "127.0.0.1:1"}, without) {
		if !hasClass(err, abstractllm.ErrProviderUnavailable) || !err.Retryable {
			t.Errorf("got %+v", err)
		}
	}
}

func TestErrorsOfTheGeneratedStubsAreRebuiltToo(t *testing.T) {
	server := serve(t)
	server.failWith(failure{code: codes.Unavailable, message: "gone", reason: "SHUTTING_DOWN", pushbackMs: 1}, always, "")
	stub := pb.NewGenerationServiceClient(client(t, server.address).Conn())
	_, err := stub.Generate(t.Context(), &pb.GenerateRequest{})
	converted := abstractllm.ErrorFrom(err)
	if !hasClass(converted, abstractllm.ErrServerShuttingDown) || !strings.HasSuffix(converted.Error(), ": gone") {
		t.Errorf("got %v", converted)
	}
	if abstractllm.ErrorFrom(converted) != converted || abstractllm.ErrorFrom(nil) != nil {
		t.Error("an error of the client does not stay as it is")
	}
	if !hasClass(abstractllm.ErrorFrom(context.Canceled), abstractllm.ErrGenerationCancelled) {
		t.Error("a context's error is not judged")
	}
	if !hasClass(abstractllm.ErrorFrom(io.ErrUnexpectedEOF), abstractllm.ErrInternal) {
		t.Error("an error without a status is not judged")
	}
}
