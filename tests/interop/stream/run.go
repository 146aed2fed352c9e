// Package stream shows: an answer as it comes: every event, or the text alone.
package stream

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run does it, and reports.
func Run(task *interop.Task) any {
	asked := interop.Read[struct {
		LLM    string
		Prompt abstractllm.String
		Script []any
		Reply  string
	}](task)
	ctx := context.Background()
	llm := task.Connect(asked.LLM)
	defer llm.Close()
	script := abstractllm.WithProviderOptions(map[string]any{"script": asked.Script})
	reply := abstractllm.WithProviderOptions(map[string]any{"reply": asked.Reply})

	var events []any
	for event, err := range llm.Stream(ctx, asked.Prompt, script) {
		interop.Check(err)
		events = append(events, interop.Event(event))
	}
	var texts []string
	for text, err := range llm.StreamText(ctx, asked.Prompt, reply) {
		interop.Check(err)
		texts = append(texts, text)
	}
	whole := interop.Completion(interop.Must(llm.Complete(ctx, asked.Prompt, script)))
	return map[string]any{"events": events, "texts": texts, "whole": whole}
}
