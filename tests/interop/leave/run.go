// Package leave shows: an answer of the local engine that is left early frees the engine within two batches.
package leave

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run does it, and reports.
func Run(task *interop.Task) any {
	asked := interop.Read[struct {
		LLM       string
		Prompt    abstractllm.String
		MaxTokens int32             `json:"max_tokens"`
		LogitBias map[int32]float64 `json:"logit_bias"`
		Pieces    int
		Times     int
	}](task)
	llm := task.Connect(asked.LLM, abstractllm.WithDefaults(
		abstractllm.WithTemperature(0),
		abstractllm.WithMaxTokens(asked.MaxTokens),
		abstractllm.WithLogitBias(asked.LogitBias),
	))
	defer llm.Close()

	var left []any
	for range asked.Times {
		pieces := 0
		for _, err := range llm.StreamText(context.Background(), asked.Prompt) {
			interop.Check(err)
			pieces++
			if pieces == asked.Pieces {
				break
			}
		}
		told := interop.Ask[map[string]any]("steps_until_idle", nil)
		told["pieces"] = pieces
		left = append(left, told)
	}
	return map[string]any{"left": left}
}
