// Package unary shows: a whole answer, as text and with all that comes with it.
package unary

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		LLM          string
		Prompt       abstractllm.String
		SystemPrompt string `json:"system_prompt"`
		MaxTokens    int32  `json:"max_tokens"`
		Stop         []string
	}](task)
	ctx := context.Background()
	llm := task.Connect(input.LLM)
	defer llm.Close()

	whole := interop.Must(llm.Complete(ctx, input.Prompt, abstractllm.WithSystemPrompt(input.SystemPrompt)))
	cut := interop.Must(llm.Complete(ctx, input.Prompt, abstractllm.WithMaxTokens(input.MaxTokens)))
	stopped := interop.Must(llm.Complete(ctx, input.Prompt, abstractllm.WithStop(input.Stop...)))
	return map[string]any{
		"text":  interop.Must(llm.Generate(ctx, input.Prompt)),
		"whole": interop.Completion(whole),
		"cut":   map[string]any{"text": cut.Text, "finish_reason": cut.FinishReason.String()},
		"stopped": map[string]any{
			"text":          stopped.Text,
			"finish_reason": stopped.FinishReason.String(),
			"stop_sequence": stopped.StopSequence,
		},
		"timing_is_set": whole.Timing.Total != nil && *whole.Timing.Total > 0,
	}
}
