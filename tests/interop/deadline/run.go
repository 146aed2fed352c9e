// Package deadline shows: a deadline ends the call with a typed error and what had come, and the server stops
// working for it.
package deadline

import (
	"context"
	"strings"
	"time"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		LLM     string
		Delay   float64
		Words   int
		Timeout float64
	}](task)
	reply := strings.Repeat("word ", input.Words)
	llm := task.Connect(input.LLM, abstractllm.WithDefaults(
		abstractllm.WithProviderOptions(map[string]any{"delay": input.Delay, "reply": reply}),
	))
	defer llm.Close()
	soon := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), time.Duration(input.Timeout*float64(time.Second)))
	}

	ctx, cancel := soon()
	defer cancel()
	_, err := llm.Generate(ctx, abstractllm.String("hi"))
	whole := short(err)

	ctx, cancel = soon()
	defer cancel()
	text := ""
	var streamed map[string]any
	for piece, err := range llm.StreamText(ctx, abstractllm.String("hi")) {
		text += piece
		if err != nil {
			streamed = short(err)
			streamed["partial_is_what_came"] = interop.Failure(err).PartialText == text
			streamed["something_came"] = text != ""
		}
	}
	return map[string]any{"whole": whole, "streamed": streamed}
}

func short(err error) map[string]any {
	report := interop.Brief(err)
	report["retryable"] = interop.Failure(err).Retryable
	return report
}
