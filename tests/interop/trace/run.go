// Package trace shows: a caller's W3C trace context travels with its call, as do the metadata it adds.
package trace

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"google.golang.org/grpc/metadata"
	"interop/runners/go/interop"
)

// Run does it, and reports.
func Run(task *interop.Task) any {
	asked := interop.Read[struct{ Traceparent, Tracestate, Other string }](task)
	llm := task.ConnectTo("recorder")
	defer llm.Close()

	ctx := metadata.AppendToOutgoingContext(context.Background(),
		"traceparent", asked.Traceparent, "tracestate", asked.Tracestate, "x-other", asked.Other)
	answer := interop.Must(llm.Generate(ctx, abstractllm.String("hi")))
	names := []string{"traceparent", "tracestate", "x-other"}
	arrived := interop.Ask[map[string]string]("metadata", map[string]any{"names": names})
	return map[string]any{"answer": answer, "arrived": arrived}
}
