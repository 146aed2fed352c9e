// Package errors shows: every reason is an error of its own class with its facts; a stream that breaks keeps the
// text that came.
package errors

import (
	"context"
	"slices"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		Reasons, Retryable []string
		RetryAfter         float64 `json:"retry_after"`
		UpstreamStatus     int     `json:"upstream_status"`
		RequestID          string  `json:"request_id"`
		Before             string
	}](task)
	ctx := context.Background()
	requestID := abstractllm.WithDefaults(abstractllm.WithRequestID(input.RequestID))
	llm, nobody := task.Connect("echo", requestID), task.Connect("nobody", requestID)
	defer llm.Close()
	defer nobody.Close()
	failure := func(llm *abstractllm.RemoteLLM, options ...abstractllm.GenerateOption) any {
		_, err := llm.Generate(ctx, abstractllm.String("hi"), options...)
		return interop.Error(err)
	}
	script := func(steps ...map[string]any) abstractllm.GenerateOption {
		return abstractllm.WithProviderOptions(map[string]any{"script": steps})
	}

	var whole []any
	for _, reason := range input.Reasons {
		step := map[string]any{"error": reason, "message": "synthetic", "upstream_status": input.UpstreamStatus}
		if slices.Contains(input.Retryable, reason) {
			step["retry_after"] = input.RetryAfter
		}
		whole = append(whole, failure(llm, script(step)))
	}

	breaking := map[string]any{"error": "PROVIDER_UNAVAILABLE", "upstream_status": input.UpstreamStatus}
	var events []any
	var broken any
	options := script(map[string]any{"text": input.Before}, breaking)
	for event, err := range llm.Stream(ctx, abstractllm.String("hi"), options) {
		if err != nil {
			broken = interop.Error(err)
		} else {
			events = append(events, interop.Event(event)["type"])
		}
	}
	return map[string]any{
		"whole":       whole,
		"broken":      map[string]any{"events": events, "error": broken},
		"temperature": failure(llm, abstractllm.WithTemperature(5)),
		"nobody":      failure(nobody),
		"option":      failure(llm, abstractllm.WithProviderOptions(map[string]any{"unheard_of": 1})),
	}
}
