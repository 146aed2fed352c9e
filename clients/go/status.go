package abstractllm

import (
	"context"
	"errors"
	"regexp"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const domain = "abstractllm"

// byCode judges a status without an ErrorInfo (from gRPC itself, or a proxy), or with a reason that is not known here.
var byCode = map[codes.Code]ErrorReason{
	codes.InvalidArgument:    ReasonInvalidRequest,
	codes.OutOfRange:         ReasonInvalidRequest,
	codes.NotFound:           ReasonUnknownLLM,
	codes.Unimplemented:      ReasonUnsupportedFeature,
	codes.Unauthenticated:    ReasonUnauthenticated,
	codes.PermissionDenied:   ReasonNotAllowed,
	codes.FailedPrecondition: ReasonNotConfigured,
	codes.ResourceExhausted:  ReasonOverloaded,
	codes.Unavailable:        ReasonProviderUnavailable,
	codes.DeadlineExceeded:   ReasonTimeout,
	codes.Canceled:           ReasonCancelled,
	codes.Aborted:            ReasonStaleConfig,
}

// tooLarge is in gRPC's own words for a message beyond a limit, on either side, with its size and the limit.
var tooLarge = regexp.MustCompile(`larger than max(?: \((\d+) vs\. (\d+)\))?`)

// ErrorFrom rebuilds the error that the server raised from what a call of a generated stub returned, as the methods of
// [RemoteLLM] do.
//
// The reason of the ErrorInfo decides; without one, or with one that is not known here, the status code does. Nil stays
// nil, and an [*Error] stays as it is.
func ErrorFrom(failure error) error {
	if failure == nil {
		return nil
	}
	if known, ok := errors.AsType[*Error](failure); ok {
		return known
	}
	return errorFrom(failure)
}

func errorFrom(failure error) *Error {
	found := statusOf(failure)
	info, facts := details(found)
	facts.Message, facts.status = found.Message(), found
	if facts.Message == "" {
		facts.Message = found.Code().String()
	}
	facts.Reason = ReasonInternal
	if reason, ok := byCode[found.Code()]; ok {
		facts.Reason = reason
	}
	if info == nil && found.Code() == codes.ResourceExhausted {
		if sizes := tooLarge.FindStringSubmatch(found.Message()); sizes != nil {
			facts.Reason, facts.Requested, facts.Limit = ReasonMessageTooLarge, sizes[1], sizes[2]
		}
	}
	kind := classes[facts.Reason]
	facts.Retryable = found.Code() == codes.Unavailable
	if info != nil {
		if known, ok := classes[ErrorReason(info.GetReason())]; ok {
			kind = known
			facts.Retryable = known.retryable
		} else {
			facts.Retryable = facts.Retryable || facts.RetryAfter > 0
		}
		if info.GetReason() != "" {
			facts.Reason = ErrorReason(info.GetReason())
		}
	}
	facts.sentinel = kind.sentinel
	if found.Code() == codes.DeadlineExceeded {
		facts.context = context.DeadlineExceeded // even if the server noticed first, and the context is still to
	}
	return facts
}

// statusOf finds the status itself: gRPC wraps that of a last attempt into words about the retries.
func statusOf(failure error) *status.Status {
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(failure, &carrier) {
		return carrier.GRPCStatus()
	}
	return status.FromContextError(failure)
}

// details reads the google.rpc details: the ErrorInfo of our domain, and an error with the facts that they tell. A
// broken detail says nothing; the status code still does.
func details(found *status.Status) (*errdetails.ErrorInfo, *Error) {
	var info *errdetails.ErrorInfo
	facts := &Error{}
	for _, detail := range found.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				info = detail
			}
		case *errdetails.RetryInfo:
			facts.RetryAfter = detail.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			if violations := detail.GetFieldViolations(); len(violations) > 0 {
				facts.Field = violations[0].GetField()
			}
		}
	}
	metadata := info.GetMetadata()
	facts.RequestID, facts.LLM, facts.Provider = metadata["request_id"], metadata["llm"], metadata["provider"]
	facts.Model, facts.Limit, facts.Requested = metadata["model"], metadata["limit"], metadata["requested"]
	if metadata["field"] != "" {
		facts.Field = metadata["field"]
	}
	if number, err := strconv.ParseUint(metadata["upstream_status"], 10, 31); err == nil {
		facts.UpstreamStatus = int(number)
	}
	if number, err := strconv.ParseUint(metadata["output_tokens"], 10, 63); err == nil {
		facts.OutputTokens = new(int64(number))
	}
	return info, facts
}

// failed is the error of a call of this client.
func (llm *RemoteLLM) failed(ctx context.Context, failure error) *Error {
	err := errorFrom(failure)
	code := err.status.Code()
	if llm.closed.Load() && (code == codes.Canceled || code == codes.Unavailable) {
		return newError(ReasonCancelled, "the client is closed")
	}
	if code == codes.Canceled {
		err.context = ctx.Err() // nil where somebody at the server cancelled
	}
	return err
}
