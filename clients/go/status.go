package abstractllm

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errorDomain is the domain of the server's ErrorInfo.
const errorDomain = "abstractllm"

// reasonByCode gives the reason of a status without an ErrorInfo, which gRPC itself or a proxy made. Codes that are not
// listed are ReasonInternal.
var reasonByCode = map[codes.Code]ErrorReason{
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

// messageTooLarge matches gRPC's text for a message beyond a limit, of either side, with its size and the limit.
var messageTooLarge = regexp.MustCompile(`larger than max(?: \((\d+) vs\. (\d+)\))?`)

// ErrorFrom returns the [*Error] for an error that a call of a generated stub returned, as the methods of [RemoteLLM]
// do. It returns nil for nil, and an [*Error] as it is.
//
// The reason of the server's ErrorInfo decides the class of the error. Where there is none, or one that this version
// does not know, the status code decides.
func ErrorFrom(err error) error {
	if err == nil {
		return nil
	}
	if converted, ok := errors.AsType[*Error](err); ok {
		return converted
	}
	return errorFromStatus(err)
}

func errorFromStatus(grpcError error) *Error {
	grpcStatus := statusOf(grpcError)
	code := grpcStatus.Code()
	err, info := decodeDetails(grpcStatus)
	err.status = grpcStatus
	err.Message = cmp.Or(grpcStatus.Message(), code.String())
	err.Reason = cmp.Or(reasonByCode[code], ReasonInternal)
	if info == nil && code == codes.ResourceExhausted {
		if sizes := messageTooLarge.FindStringSubmatch(err.Message); sizes != nil {
			err.Reason, err.Requested, err.Limit = ReasonMessageTooLarge, sizes[1], sizes[2]
		}
	}
	class := errorClasses[err.Reason]
	err.Retryable = code == codes.Unavailable
	if info != nil {
		reason := ErrorReason(info.GetReason())
		if known, ok := errorClasses[reason]; ok {
			class, err.Retryable = known, known.retryable
		} else {
			err.Retryable = err.Retryable || err.RetryAfter > 0
		}
		err.Reason = cmp.Or(reason, err.Reason)
	}
	err.sentinel = class.sentinel
	if code == codes.DeadlineExceeded {
		err.contextError = context.DeadlineExceeded // also where the server's clock was ahead of the context's
	}
	return err
}

// statusOf returns the status that an error carries. gRPC wraps the status of a last attempt into an error about the
// retries; status.Convert would return the text of that.
func statusOf(err error) *status.Status {
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(err, &carrier) {
		return carrier.GRPCStatus()
	}
	return status.FromContextError(err)
}

// decodeDetails reads the google.rpc details of a status. It returns an error that has what they tell, and the server's
// ErrorInfo, nil where there is none. Details that cannot be decoded are skipped.
func decodeDetails(grpcStatus *status.Status) (*Error, *errdetails.ErrorInfo) {
	var info *errdetails.ErrorInfo
	err := &Error{}
	for _, detail := range grpcStatus.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == errorDomain {
				info = detail
			}
		case *errdetails.RetryInfo:
			err.RetryAfter = detail.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			if violations := detail.GetFieldViolations(); len(violations) > 0 {
				err.Field = violations[0].GetField()
			}
		}
	}
	metadata := info.GetMetadata()
	err.RequestID, err.LLM, err.Provider = metadata["request_id"], metadata["llm"], metadata["provider"]
	err.Model, err.Limit, err.Requested = metadata["model"], metadata["limit"], metadata["requested"]
	err.Field = cmp.Or(metadata["field"], err.Field)
	if number, parseError := strconv.ParseUint(metadata["upstream_status"], 10, 31); parseError == nil {
		err.UpstreamStatus = int(number)
	}
	if number, parseError := strconv.ParseUint(metadata["output_tokens"], 10, 63); parseError == nil {
		err.OutputTokens = new(int64(number))
	}
	return err, info
}
