package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/abstractllm/abstractllm-go"
)

var classNames = map[error]string{
	abstractllm.ErrInvalidRequest:        "InvalidRequestError",
	abstractllm.ErrUnsupportedParameter:  "UnsupportedParameterError",
	abstractllm.ErrContextLengthExceeded: "ContextLengthExceededError",
	abstractllm.ErrUnsupportedFeature:    "UnsupportedFeatureError",
	abstractllm.ErrUnknownLLM:            "UnknownLLMError",
	abstractllm.ErrModelNotFound:         "ModelNotFoundError",
	abstractllm.ErrAuthentication:        "AuthenticationError",
	abstractllm.ErrPermissionDenied:      "PermissionDeniedError",
	abstractllm.ErrProviderCredentials:   "ProviderCredentialsError",
	abstractllm.ErrConfiguration:         "ConfigurationError",
	abstractllm.ErrModelLoad:             "ModelLoadError",
	abstractllm.ErrModelInUse:            "ModelInUseError",
	abstractllm.ErrContentBlocked:        "ContentBlockedError",
	abstractllm.ErrRateLimited:           "RateLimitedError",
	abstractllm.ErrOverloaded:            "OverloadedError",
	abstractllm.ErrQuotaExceeded:         "QuotaExceededError",
	abstractllm.ErrProviderUnavailable:   "ProviderUnavailableError",
	abstractllm.ErrProviderProtocol:      "ProviderProtocolError",
	abstractllm.ErrIncompleteStream:      "IncompleteStreamError",
	abstractllm.ErrEngineCrashed:         "EngineCrashedError",
	abstractllm.ErrServerShuttingDown:    "ServerShuttingDownError",
	abstractllm.ErrGenerationTimeout:     "GenerationTimeoutError",
	abstractllm.ErrGenerationCancelled:   "GenerationCancelledError",
	abstractllm.ErrStaleConfig:           "StaleConfigError",
	abstractllm.ErrInternal:              "InternalError",
	abstractllm.ErrUpstreamRejected:      "UpstreamRejectedError",
}

// Failure returns the error as one of the client; it panics for any other, and for nil.
func Failure(err error) *abstractllm.Error {
	failure, ok := errors.AsType[*abstractllm.Error](err)
	if !ok {
		panic(fmt.Sprintf("not an error of the client: %v", err))
	}
	return failure
}

// Class names the error's class as the other languages do.
func Class(err error) string {
	for class, name := range classNames {
		if errors.Is(err, class) {
			return name
		}
	}
	panic(fmt.Sprintf("an error without a class: %v", err))
}

// Brief reports an error by its class and reason.
func Brief(err error) map[string]any {
	return map[string]any{"class": Class(err), "reason": Failure(err).Reason}
}

// Error reports an error: its class, its reason, and its facts.
func Error(err error) map[string]any {
	failure := Failure(err)
	report := Brief(err)
	report["message"] = failure.Message
	report["retryable"] = failure.Retryable
	report["retry_after"] = known(failure.RetryAfter.Seconds())
	report["llm"] = known(failure.LLM)
	report["provider"] = known(failure.Provider)
	report["upstream_status"] = known(failure.UpstreamStatus)
	report["has_request_id"] = failure.RequestID != ""
	report["field"] = known(failure.Field)
	report["limit"] = known(failure.Limit)
	report["requested"] = known(failure.Requested)
	report["output_tokens"] = failure.OutputTokens
	report["partial_text"] = failure.PartialText
	return report
}

// known returns nil for the zero value, which means "not known" in errors.
func known[Value comparable](value Value) any {
	var zero Value
	if value == zero {
		return nil
	}
	return value
}

// Usage reports token counts; absent ones are null.
func Usage(usage abstractllm.Usage) map[string]any {
	return map[string]any{
		"input_tokens":        usage.InputTokens,
		"output_tokens":       usage.OutputTokens,
		"cached_input_tokens": usage.CachedInputTokens,
		"reasoning_tokens":    usage.ReasoningTokens,
	}
}

// Event reports an event by its type.
func Event(event abstractllm.Event) map[string]any {
	switch event := event.(type) {
	case abstractllm.Started:
		return map[string]any{"type": "started", "llm": event.LLM, "provider": event.Provider, "model": event.Model}
	case abstractllm.TextDelta:
		return map[string]any{"type": "text", "text": event.Text}
	case abstractllm.ReasoningDelta:
		return map[string]any{"type": "reasoning", "text": event.Text}
	case abstractllm.ToolCallDelta:
		return map[string]any{
			"type":               "tool_call",
			"index":              event.Index,
			"id":                 event.ID,
			"name":               event.Name,
			"arguments_fragment": event.ArgumentsFragment,
		}
	case abstractllm.Finished:
		return map[string]any{
			"type":          "finished",
			"finish_reason": FinishReason(event.FinishReason),
			"stop_sequence": event.StopSequence,
			"usage":         Usage(event.Usage),
		}
	}
	panic(fmt.Sprintf("an unknown event: %T", event))
}

// FinishReason reports the word, or the number of one that this client does not know.
func FinishReason(reason abstractllm.FinishReason) any {
	if number, err := strconv.Atoi(reason.String()); err == nil {
		return number
	}
	return reason.String()
}

// Completion reports a whole answer.
func Completion(completion *abstractllm.Completion) map[string]any {
	dropped := completion.DroppedParameters
	if dropped == nil {
		dropped = []string{}
	}
	return map[string]any{
		"text":               completion.Text,
		"message":            Message(completion.Message),
		"finish_reason":      FinishReason(completion.FinishReason),
		"stop_sequence":      completion.StopSequence,
		"usage":              Usage(completion.Usage),
		"llm":                completion.LLM,
		"provider":           completion.Provider,
		"model":              completion.Model,
		"has_id":             completion.ID != "",
		"dropped_parameters": dropped,
	}
}

// Message reports a chat message.
func Message(message abstractllm.ChatMessage) map[string]any {
	parts := []any{}
	for _, part := range message.Parts {
		parts = append(parts, Part(part))
	}
	return map[string]any{"role": message.Role.String(), "parts": parts}
}

// Part reports one part of a message; bytes by their size and SHA-256.
func Part(part abstractllm.Part) map[string]any {
	report := map[string]any{}
	var state []byte
	switch part := part.(type) {
	case abstractllm.Text:
		report["text"], state = part.Text, part.ProviderState
	case abstractllm.Image:
		image := Summary(part.Data)
		image["mime_type"] = part.MIMEType
		report["image"], state = image, part.ProviderState
	case abstractllm.ToolCall:
		call := map[string]any{"id": part.ID, "name": part.Name, "arguments_json": part.ArgumentsJSON}
		report["tool_call"], state = call, part.ProviderState
	case abstractllm.ToolResult:
		result := map[string]any{
			"tool_call_id": part.ToolCallID, "content": part.Content, "is_error": part.IsError,
		}
		report["tool_result"], state = result, part.ProviderState
	case abstractllm.Reasoning:
		report["reasoning"], state = part.Text, part.ProviderState
	default:
		panic(fmt.Sprintf("an unknown part: %T", part))
	}
	if len(state) > 0 {
		report["provider_state"] = hex.EncodeToString(state)
	}
	return report
}

// Summary stands for bytes.
func Summary(data []byte) map[string]any {
	digest := sha256.Sum256(data)
	return map[string]any{"size": len(data), "sha256": hex.EncodeToString(digest[:])}
}

// Mirrored is the request that the LLM "mirror" got, as its answer shows it; numbers stay as they are written.
type Mirrored struct {
	Messages       []MirroredMessage `json:"messages"`
	Parameters     json.RawMessage   `json:"parameters"`
	ResponseFormat json.RawMessage   `json:"response_format"`
	Tools          json.RawMessage   `json:"tools"`
	ToolChoice     json.RawMessage   `json:"tool_choice"`
	RequestID      json.RawMessage   `json:"request_id"`
	Labels         json.RawMessage   `json:"labels"`
	HasTimeout     bool              `json:"has_timeout"`
}

// MirroredMessage is one message that the LLM "mirror" got.
type MirroredMessage struct {
	Role  string                       `json:"role"`
	Parts []map[string]json.RawMessage `json:"parts"`
}

// ReadMirrored decodes an answer of the LLM "mirror"; it panics where there is an error.
func ReadMirrored(text string, err error) Mirrored {
	Check(err)
	var mirrored Mirrored
	Check(json.Unmarshal([]byte(text), &mirrored))
	return mirrored
}
