package abstractllm

import (
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The classes of errors. errors.Is(err, ErrRateLimited) reports whether an error of this package is of a class.
var (
	// ErrInvalidRequest reports a malformed request: Field is the wrong field, Requested its value, Limit the rule.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrUnsupportedParameter reports a parameter or provider option that the LLM does not support.
	ErrUnsupportedParameter = errors.New("unsupported parameter")
	// ErrContextLengthExceeded reports that prompt and answer do not fit into the context window: Requested tokens where
	// Limit fit.
	ErrContextLengthExceeded = errors.New("context length exceeded")
	// ErrUnsupportedFeature reports a kind of request that the LLM, or the server, does not support.
	ErrUnsupportedFeature = errors.New("unsupported feature")
	// ErrUnknownLLM reports that no LLM of this name is configured.
	ErrUnknownLLM = errors.New("unknown LLM")
	// ErrModelNotFound reports that the provider, the hub or the cache has no such model.
	ErrModelNotFound = errors.New("model not found")
	// ErrAuthentication reports that the caller's token or certificate is missing or wrong.
	ErrAuthentication = errors.New("authentication failed")
	// ErrPermissionDenied reports that the caller's role does not allow the call.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrProviderCredentials reports that the server's key for the provider is missing or refused.
	ErrProviderCredentials = errors.New("provider credentials refused")
	// ErrConfiguration reports that the configuration of the server or of this client is wrong or incomplete.
	ErrConfiguration = errors.New("wrong configuration")
	// ErrModelLoad reports that a local model cannot be loaded.
	ErrModelLoad = errors.New("model cannot be loaded")
	// ErrModelInUse reports that a model cannot be removed or unloaded while it is used.
	ErrModelInUse = errors.New("model in use")
	// ErrContentBlocked reports that the provider refuses the content of the request.
	ErrContentBlocked = errors.New("content blocked")
	// ErrRateLimited reports that the provider asks to slow down.
	ErrRateLimited = errors.New("rate limited")
	// ErrOverloaded reports that too many requests wait already.
	ErrOverloaded = errors.New("overloaded")
	// ErrQuotaExceeded reports that the account's quota at the provider is used up.
	ErrQuotaExceeded = errors.New("quota exceeded")
	// ErrProviderUnavailable reports that the provider, or the server, cannot be reached or failed.
	ErrProviderUnavailable = errors.New("provider unavailable")
	// ErrProviderProtocol reports that the provider's answer cannot be understood.
	ErrProviderProtocol = errors.New("provider protocol violated")
	// ErrIncompleteStream reports that the answer broke off; PartialText is the text that came before. The call is not
	// retried: the caller decides.
	ErrIncompleteStream = errors.New("incomplete stream")
	// ErrEngineCrashed reports that the process of the local engine ended; the server starts it again.
	ErrEngineCrashed = errors.New("engine crashed")
	// ErrServerShuttingDown reports that the server, or the LLM, is closing; another server can answer.
	ErrServerShuttingDown = errors.New("server shutting down")
	// ErrGenerationTimeout reports that the deadline passed.
	ErrGenerationTimeout = errors.New("generation timed out")
	// ErrGenerationCancelled reports that the caller, or an operator, cancelled the request.
	ErrGenerationCancelled = errors.New("generation cancelled")
	// ErrStaleConfig reports that the configuration changed since it was read; read it again.
	ErrStaleConfig = errors.New("stale configuration")
	// ErrInternal reports a fault of the server; its log has the full text, under the request's id.
	ErrInternal = errors.New("internal error")
	// ErrUpstreamRejected reports that the provider refused, for reasons of its own, a request that the server's checks
	// accepted; another provider may answer.
	ErrUpstreamRejected = errors.New("upstream rejected")
)

// ErrorReason is the reason of a failure: the name of one of the contract's ErrorReason values, without its prefix. A
// reason that only a newer server knows passes through.
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
	ReasonUpstreamRejected      ErrorReason = "UPSTREAM_REJECTED"
)

// errorClass is the class of the errors of a reason, and their properties.
type errorClass struct {
	sentinel  error
	code      codes.Code
	retryable bool
}

var errorClasses = map[ErrorReason]errorClass{
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
	ReasonUpstreamRejected:      {ErrUpstreamRejected, codes.FailedPrecondition, false},
}

// Error is the error of every failure of this package. A field that is empty or zero is not known, unless said
// otherwise.
type Error struct {
	// Reason is the reason of the failure, for programs.
	Reason ErrorReason
	// Message describes the failure, for people.
	Message string
	// Retryable reports whether the same request, unchanged, may succeed later.
	Retryable bool
	// RetryAfter is the time to wait before a retry.
	RetryAfter time.Duration
	// Provider is the name of the provider that failed.
	Provider string
	// LLM is the name of the LLM that the request was for.
	LLM string
	// Model is the name of the model that the request was for.
	Model string
	// UpstreamStatus is the HTTP status of the hosted provider.
	UpstreamStatus int
	// RequestID is the id of the request in the server's logs.
	RequestID string
	// Field is the path of the field that is wrong, such as "parameters.temperature".
	Field string
	// Limit is the bound, or the rule, that the request broke.
	Limit string
	// Requested is the value that broke it.
	Requested string
	// OutputTokens is the number of tokens that were generated before the failure; nil where it is not known.
	OutputTokens *int64
	// PartialText is the text that came before the failure.
	PartialText string

	sentinel     error // of the class
	contextError error // of package context; nil for most
	status       *status.Status
}

// Error returns the reason and the message.
func (e *Error) Error() string { return string(e.Reason) + ": " + e.Message }

// Unwrap returns the class of the error, and with it context.DeadlineExceeded where a deadline passed, and
// context.Canceled where the caller's context was cancelled.
func (e *Error) Unwrap() []error {
	if e.contextError == nil {
		return []error{e.sentinel}
	}
	return []error{e.sentinel, e.contextError}
}

// GRPCStatus returns the status that the call ended with, details included, as the functions of package status expect.
// For an error that this client itself raised, the status has the reason's code.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// newError returns an error that this client itself raises.
func newError(reason ErrorReason, message string) *Error {
	class := errorClasses[reason]
	return &Error{
		Reason:    reason,
		Message:   message,
		Retryable: class.retryable,
		sentinel:  class.sentinel,
		status:    status.New(class.code, message),
	}
}

// invalidField returns the error for a value that breaks a rule. The error shows at most 80 bytes of the value.
func invalidField(field, rule, value string) *Error {
	if len(value) > 80 {
		value = strings.ToValidUTF8(value[:77], "") + "..."
	}
	err := newError(ReasonInvalidRequest, field+": must be "+rule+", got "+value)
	err.Field, err.Limit, err.Requested = field, rule, value
	return err
}

// invalidSetting returns the error for an option of a client that cannot be used.
func invalidSetting(field, message string) *Error {
	err := newError(ReasonNotConfigured, message)
	err.Field = field
	return err
}
