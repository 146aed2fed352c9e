// Package growth shows: what a newer server adds does no harm: unknown events and parts are skipped, unknown words
// passed through.
package growth

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	ctx := context.Background()
	llm := task.ConnectTo("recorder")
	defer llm.Close()

	whole := interop.Must(llm.Complete(ctx, abstractllm.String("hi")))
	var events []any
	for event, err := range llm.Stream(ctx, abstractllm.String("hi")) {
		interop.Check(err)
		events = append(events, interop.Event(event))
	}
	joined := ""
	for text, err := range llm.StreamText(ctx, abstractllm.String("hi")) {
		interop.Check(err)
		joined += text
	}
	return map[string]any{
		"events": events,
		"joined": joined,
		"whole": map[string]any{
			"text":          whole.Text,
			"finish_reason": interop.FinishReason(whole.FinishReason),
			"parts":         interop.Message(whole.Message)["parts"],
		},
	}
}
