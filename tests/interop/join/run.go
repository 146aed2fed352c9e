// Package join shows: the pieces of a real model's answer, joined, are the whole answer.
package join

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		LLM     string
		Prompts []abstractllm.String
	}](task)
	ctx := context.Background()
	llm := task.Connect(input.LLM, abstractllm.WithDefaults(abstractllm.WithTemperature(0)))
	defer llm.Close()

	var answers []any
	for _, prompt := range input.Prompts {
		joined := ""
		for text, err := range llm.StreamText(ctx, prompt) {
			interop.Check(err)
			joined += text
		}
		whole := interop.Must(llm.Generate(ctx, prompt))
		answers = append(answers, map[string]any{"joined": joined, "whole": whole})
	}
	return answers
}
