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
}

// Failure takes an error of the client; it panics for any other, and for none.
func Failure(err error) *abstractllm.Error {
	found, ok := errors.AsType[*abstractllm.Error](err)
	if !ok {
		panic(fmt.Sprintf("not an error of the client: %v", err))
	}
	return found
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
	found := Failure(err)
	told := Brief(err)
	told["message"] = found.Message
	told["retryable"] = found.Retryable
	told["retry_after"] = known(found.RetryAfter.Seconds())
	told["llm"] = known(found.LLM)
	told["provider"] = known(found.Provider)
	told["upstream_status"] = known(found.UpstreamStatus)
	told["has_request_id"] = found.RequestID != ""
	told["field"] = known(found.Field)
	told["limit"] = known(found.Limit)
	told["requested"] = known(found.Requested)
	told["output_tokens"] = found.OutputTokens
	told["partial_text"] = found.PartialText
	return told
}

// known gives nil for the zero value, which means "not known" in errors.
func known[Value comparable](value Value) any {
	var none Value
	if value == none {
		return nil
	}
	return value
}

// Usage reports token counts; absent ones are null.
func Usage(found abstractllm.Usage) map[string]any {
	return map[string]any{
		"input_tokens":        found.InputTokens,
		"output_tokens":       found.OutputTokens,
		"cached_input_tokens": found.CachedInputTokens,
		"reasoning_tokens":    found.ReasoningTokens,
	}
}

// Event reports an event by its type.
func Event(event abstractllm.Event) map[string]any {
	switch found := event.(type) {
	case abstractllm.Started:
		return map[string]any{"type": "started", "llm": found.LLM, "provider": found.Provider, "model": found.Model}
	case abstractllm.TextDelta:
		return map[string]any{"type": "text", "text": found.Text}
	case abstractllm.ReasoningDelta:
		return map[string]any{"type": "reasoning", "text": found.Text}
	case abstractllm.ToolCallDelta:
		return map[string]any{
			"type":               "tool_call",
			"index":              found.Index,
			"id":                 found.ID,
			"name":               found.Name,
			"arguments_fragment": found.ArgumentsFragment,
		}
	case abstractllm.Finished:
		return map[string]any{
			"type":          "finished",
			"finish_reason": FinishReason(found.FinishReason),
			"stop_sequence": found.StopSequence,
			"usage":         Usage(found.Usage),
		}
	}
	panic(fmt.Sprintf("an unknown event: %T", event))
}

// FinishReason reports the word, or the number of one that this client does not know.
func FinishReason(found abstractllm.FinishReason) any {
	if number, err := strconv.Atoi(found.String()); err == nil {
		return number
	}
	return found.String()
}

// Completion reports a whole answer.
func Completion(found *abstractllm.Completion) map[string]any {
	dropped := found.DroppedParameters
	if dropped == nil {
		dropped = []string{}
	}
	return map[string]any{
		"text":               found.Text,
		"message":            Message(found.Message),
		"finish_reason":      FinishReason(found.FinishReason),
		"stop_sequence":      found.StopSequence,
		"usage":              Usage(found.Usage),
		"llm":                found.LLM,
		"provider":           found.Provider,
		"model":              found.Model,
		"has_id":             found.ID != "",
		"dropped_parameters": dropped,
	}
}

// Message reports a chat message.
func Message(found abstractllm.ChatMessage) map[string]any {
	parts := []any{}
	for _, part := range found.Parts {
		parts = append(parts, Part(part))
	}
	return map[string]any{"role": found.Role.String(), "parts": parts}
}

// Part reports one part of a message; bytes by their size and SHA-256.
func Part(part abstractllm.Part) map[string]any {
	told := map[string]any{}
	var state []byte
	switch found := part.(type) {
	case abstractllm.Text:
		told["text"], state = found.Text, found.ProviderState
	case abstractllm.Image:
		image := Summary(found.Data)
		image["mime_type"] = found.MIMEType
		told["image"], state = image, found.ProviderState
	case abstractllm.ToolCall:
		call := map[string]any{"id": found.ID, "name": found.Name, "arguments_json": found.ArgumentsJSON}
		told["tool_call"], state = call, found.ProviderState
	case abstractllm.ToolResult:
		result := map[string]any{
			"tool_call_id": found.ToolCallID, "content": found.Content, "is_error": found.IsError,
		}
		told["tool_result"], state = result, found.ProviderState
	case abstractllm.Reasoning:
		told["reasoning"], state = found.Text, found.ProviderState
	default:
		panic(fmt.Sprintf("an unknown part: %T", part))
	}
	if len(state) > 0 {
		told["provider_state"] = hex.EncodeToString(state)
	}
	return told
}

// Summary stands for bytes.
func Summary(data []byte) map[string]any {
	digest := sha256.Sum256(data)
	return map[string]any{"size": len(data), "sha256": hex.EncodeToString(digest[:])}
}

// Mirrored is what the LLM "mirror" says of the request that it got; numbers stay as they are written.
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
	var found Mirrored
	Check(json.Unmarshal([]byte(text), &found))
	return found
}
