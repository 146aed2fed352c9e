package abstractllm

import (
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The classes of failure. errors.Is(err, ErrRateLimited) tells whether an error of this package is of a class.
var (
	// ErrInvalidRequest: the request is malformed; Field names what, Limit and Requested say why.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrUnsupportedParameter: the LLM does not take this parameter or provider option.
	ErrUnsupportedParameter = errors.New("unsupported parameter")
	// ErrContextLengthExceeded: prompt and answer do not fit the context window; Requested tokens against Limit.
	ErrContextLengthExceeded = errors.New("context length exceeded")
	// ErrUnsupportedFeature: the LLM, or the server, cannot do this kind of request.
	ErrUnsupportedFeature = errors.New("unsupported feature")
	// ErrUnknownLLM: no LLM of this name is configured.
	ErrUnknownLLM = errors.New("unknown LLM")
	// ErrModelNotFound: the provider, the hub or the cache has no such model.
	ErrModelNotFound = errors.New("model not found")
	// ErrAuthentication: the caller did not prove who it is.
	ErrAuthentication = errors.New("authentication failed")
	// ErrPermissionDenied: the caller's role does not allow this.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrProviderCredentials: the provider's key is missing or refused.
	ErrProviderCredentials = errors.New("provider credentials refused")
	// ErrConfiguration: the configuration, or that of this client, is wrong or incomplete.
	ErrConfiguration = errors.New("wrong configuration")
	// ErrModelLoad: a local model cannot be loaded.
	ErrModelLoad = errors.New("model cannot be loaded")
	// ErrModelInUse: a model cannot be removed or unloaded while it is used.
	ErrModelInUse = errors.New("model in use")
	// ErrContentBlocked: the provider refuses the request's content.
	ErrContentBlocked = errors.New("content blocked")
	// ErrRateLimited: the provider asks to slow down.
	ErrRateLimited = errors.New("rate limited")
	// ErrOverloaded: too many requests wait already.
	ErrOverloaded = errors.New("overloaded")
	// ErrQuotaExceeded: the account's quota at the provider is used up.
	ErrQuotaExceeded = errors.New("quota exceeded")
	// ErrProviderUnavailable: the provider, or the server, cannot be reached, or failed by itself.
	ErrProviderUnavailable = errors.New("provider unavailable")
	// ErrProviderProtocol: the provider's answer cannot be understood.
	ErrProviderProtocol = errors.New("provider protocol violated")
	// ErrIncompleteStream: the answer broke off; PartialText holds what came. The caller decides whether to ask again.
	ErrIncompleteStream = errors.New("incomplete stream")
	// ErrEngineCrashed: the local engine's process ended; it is started again by itself.
	ErrEngineCrashed = errors.New("engine crashed")
	// ErrServerShuttingDown: the server, or the LLM, is closing; ask another one.
	ErrServerShuttingDown = errors.New("server shutting down")
	// ErrGenerationTimeout: the deadline passed.
	ErrGenerationTimeout = errors.New("generation timed out")
	// ErrGenerationCancelled: the caller, or an operator, cancelled the request.
	ErrGenerationCancelled = errors.New("generation cancelled")
	// ErrStaleConfig: the configuration changed since it was read; read it again.
	ErrStaleConfig = errors.New("stale configuration")
	// ErrInternal: a fault of the server; the full text is in its log, under the request's id.
	ErrInternal = errors.New("internal error")
)

// ErrorReason is what went wrong: the name of one of the contract's ErrorReason values without its prefix. One that
// only a newer server knows passes through.
type ErrorReason string

// The reasons of the contract; docs/errors.md describes them.
const (
	ReasonInvalidRequest        ErrorReason = "INVALID_REQUEST"
	ReasonUnsupportedParameter  ErrorReason = "UNSUPPORTED_PARAMETER"
	ReasonContextLengthExceeded ErrorReason = "CONTEXT_LENGTH_EXCEEDED"
	ReasonMessageTooLarge       ErrorReason = "MESSAGE_TOO_LARGE"
	ReasonUnsupportedFeature    ErrorReason = "UNSUPPORTED_FEATURE"
	ReasonUnknownLLM            ErrorReason = "UNKNOWN_LLM"
	ReasonModelNotFound         ErrorReason = "MODEL_NOT_FOUND"
	ReasonUnauthenticated       ErrorReason = "UNAUTHENTICATED"
	ReasonNotAllowed            ErrorReason = "NOT_ALLOWED"
	ReasonProviderCredentials   ErrorReason = "PROVIDER_CREDENTIALS"
	ReasonNotConfigured         ErrorReason = "NOT_CONFIGURED"
	ReasonModelLoadFailed       ErrorReason = "MODEL_LOAD_FAILED"
	ReasonModelInUse            ErrorReason = "MODEL_IN_USE"
	ReasonContentBlocked        ErrorReason = "CONTENT_BLOCKED"
	ReasonRateLimited           ErrorReason = "RATE_LIMITED"
	ReasonOverloaded            ErrorReason = "OVERLOADED"
	ReasonQuotaExceeded         ErrorReason = "QUOTA_EXCEEDED"
	ReasonProviderUnavailable   ErrorReason = "PROVIDER_UNAVAILABLE"
	ReasonProviderProtocol      ErrorReason = "PROVIDER_PROTOCOL"
	ReasonIncompleteStream      ErrorReason = "INCOMPLETE_STREAM"
	ReasonEngineCrashed         ErrorReason = "ENGINE_CRASHED"
	ReasonShuttingDown          ErrorReason = "SHUTTING_DOWN"
	ReasonTimeout               ErrorReason = "TIMEOUT"
	ReasonCancelled             ErrorReason = "CANCELLED"
	ReasonStaleConfig           ErrorReason = "STALE_CONFIG"
	ReasonInternal              ErrorReason = "INTERNAL"
)

// class is what a reason means to this client.
type class struct {
	sentinel  error
	code      codes.Code
	retryable bool
}

var classes = map[ErrorReason]class{
	ReasonInvalidRequest:        {ErrInvalidRequest, codes.InvalidArgument, false},
	ReasonUnsupportedParameter:  {ErrUnsupportedParameter, codes.InvalidArgument, false},
	ReasonContextLengthExceeded: {ErrContextLengthExceeded, codes.InvalidArgument, false},
	ReasonMessageTooLarge:       {ErrInvalidRequest, codes.ResourceExhausted, false},
	ReasonUnsupportedFeature:    {ErrUnsupportedFeature, codes.Unimplemented, false},
	ReasonUnknownLLM:            {ErrUnknownLLM, codes.NotFound, false},
	ReasonModelNotFound:         {ErrModelNotFound, codes.NotFound, false},
	ReasonUnauthenticated:       {ErrAuthentication, codes.Unauthenticated, false},
	ReasonNotAllowed:            {ErrPermissionDenied, codes.PermissionDenied, false},
	ReasonProviderCredentials:   {ErrProviderCredentials, codes.FailedPrecondition, false},
	ReasonNotConfigured:         {ErrConfiguration, codes.FailedPrecondition, false},
	ReasonModelLoadFailed:       {ErrModelLoad, codes.FailedPrecondition, false},
	ReasonModelInUse:            {ErrModelInUse, codes.FailedPrecondition, false},
	ReasonContentBlocked:        {ErrContentBlocked, codes.FailedPrecondition, false},
	ReasonRateLimited:           {ErrRateLimited, codes.ResourceExhausted, true},
	ReasonOverloaded:            {ErrOverloaded, codes.ResourceExhausted, true},
	ReasonQuotaExceeded:         {ErrQuotaExceeded, codes.ResourceExhausted, false},
	ReasonProviderUnavailable:   {ErrProviderUnavailable, codes.Unavailable, true},
	ReasonProviderProtocol:      {ErrProviderProtocol, codes.Unavailable, true},
	ReasonIncompleteStream:      {ErrIncompleteStream, codes.Unavailable, false},
	ReasonEngineCrashed:         {ErrEngineCrashed, codes.Unavailable, true},
	ReasonShuttingDown:          {ErrServerShuttingDown, codes.Unavailable, true},
	ReasonTimeout:               {ErrGenerationTimeout, codes.DeadlineExceeded, false},
	ReasonCancelled:             {ErrGenerationCancelled, codes.Canceled, false},
	ReasonStaleConfig:           {ErrStaleConfig, codes.Aborted, false},
	ReasonInternal:              {ErrInternal, codes.Internal, false},
}

// Error is every failure of this package. What is empty or zero is not known, unless said otherwise.
type Error struct {
	// Reason is what happened, for a program.
	Reason ErrorReason
	// Message is what happened, for a person.
	Message string
	// Retryable tells whether the same request may succeed later, unchanged.
	Retryable bool
	// RetryAfter is how long to wait before a retry.
	RetryAfter time.Duration
	// Provider is the provider that failed.
	Provider string
	// LLM is the name of the LLM that was asked.
	LLM string
	// Model is the model that was asked.
	Model string
	// UpstreamStatus is the hosted provider's HTTP status.
	UpstreamStatus int
	// RequestID finds the request in the server's logs.
	RequestID string
	// Field is the path of the field that is wrong, such as "parameters.temperature".
	Field string
	// Limit is what the field may hold.
	Limit string
	// Requested is what it held.
	Requested string
	// OutputTokens are the tokens that were generated before the failure; nil: not known.
	OutputTokens *int64
	// PartialText is the text that came before the failure.
	PartialText string

	sentinel error
	context  error
	status   *status.Status
}

// Error gives the reason and the message.
func (err *Error) Error() string { return string(err.Reason) + ": " + err.Message }

// Unwrap gives the class of the failure, and with it context.DeadlineExceeded where a deadline passed, and
// context.Canceled where the caller's context was cancelled.
func (err *Error) Unwrap() []error {
	if err.context == nil {
		return []error{err.sentinel}
	}
	return []error{err.sentinel, err.context}
}

// GRPCStatus gives the status that the call ended with, details included, to the functions of package status; for a
// failure within this client, a status of the reason's code.
func (err *Error) GRPCStatus() *status.Status { return err.status }

// newError makes an error of this client's own.
func newError(reason ErrorReason, message string) *Error {
	kind := classes[reason]
	return &Error{
		Reason:    reason,
		Message:   message,
		Retryable: kind.retryable,
		sentinel:  kind.sentinel,
		status:    status.New(kind.code, message),
	}
}

// refused is the error for a value that breaks a rule; it shows at most 80 bytes of the value.
func refused(field, rule, value string) *Error {
	if len(value) > 80 {
		value = strings.ToValidUTF8(value[:77], "") + "..."
	}
	err := newError(ReasonInvalidRequest, field+": must be "+rule+", got "+value)
	err.Field, err.Limit, err.Requested = field, rule, value
	return err
}

// misconfigured is the error for a client that cannot be made as asked.
func misconfigured(field, message string) *Error {
	err := newError(ReasonNotConfigured, message)
	err.Field = field
	return err
}
