// Package trace shows: a caller's W3C trace context travels with its call, as do the metadata it adds.
package trace

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"google.golang.org/grpc/metadata"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct{ Traceparent, Tracestate, Other string }](task)
	llm := task.ConnectTo("recorder")
	defer llm.Close()

	ctx := metadata.AppendToOutgoingContext(context.Background(),
		"traceparent", input.Traceparent, "tracestate", input.Tracestate, "x-other", input.Other)
	answer := interop.Must(llm.Generate(ctx, abstractllm.String("hi")))
	names := []string{"traceparent", "tracestate", "x-other"}
	arrived := interop.Ask[map[string]string]("metadata", map[string]any{"names": names})
	return map[string]any{"answer": answer, "arrived": arrived}
}
