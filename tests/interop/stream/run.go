// Package stream shows: an answer as it comes: every event, or the text alone.
package stream

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		LLM    string
		Prompt abstractllm.String
		Script []any
		Reply  string
	}](task)
	ctx := context.Background()
	llm := task.Connect(input.LLM)
	defer llm.Close()
	script := abstractllm.WithProviderOptions(map[string]any{"script": input.Script})
	reply := abstractllm.WithProviderOptions(map[string]any{"reply": input.Reply})

	var events []any
	for event, err := range llm.Stream(ctx, input.Prompt, script) {
		interop.Check(err)
		events = append(events, interop.Event(event))
	}
	var texts []string
	for text, err := range llm.StreamText(ctx, input.Prompt, reply) {
		interop.Check(err)
		texts = append(texts, text)
	}
	whole := interop.Completion(interop.Must(llm.Complete(ctx, input.Prompt, script)))
	return map[string]any{"events": events, "texts": texts, "whole": whole}
}
