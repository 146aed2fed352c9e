// Package leave shows: an answer of the local engine that is left early frees the engine within two batches.
package leave

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		LLM       string
		Prompt    abstractllm.String
		MaxTokens int32             `json:"max_tokens"`
		LogitBias map[int32]float64 `json:"logit_bias"`
		Pieces    int
		Times     int
	}](task)
	llm := task.Connect(input.LLM, abstractllm.WithDefaults(
		abstractllm.WithTemperature(0),
		abstractllm.WithMaxTokens(input.MaxTokens),
		abstractllm.WithLogitBias(input.LogitBias),
	))
	defer llm.Close()

	var left []any
	for range input.Times {
		pieces := 0
		for _, err := range llm.StreamText(context.Background(), input.Prompt) {
			interop.Check(err)
			pieces++
			if pieces == input.Pieces {
				break
			}
		}
		report := interop.Ask[map[string]any]("steps_until_idle", nil)
		report["pieces"] = pieces
		left = append(left, report)
	}
	return map[string]any{"left": left}
}
