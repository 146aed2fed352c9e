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

// Run does it, and reports.
func Run(task *interop.Task) any {
	asked := interop.Read[struct {
		LLM     string
		Delay   float64
		Words   int
		Timeout float64
	}](task)
	reply := strings.Repeat("word ", asked.Words)
	llm := task.Connect(asked.LLM, abstractllm.WithDefaults(
		abstractllm.WithProviderOptions(map[string]any{"delay": asked.Delay, "reply": reply}),
	))
	defer llm.Close()
	soon := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), time.Duration(asked.Timeout*float64(time.Second)))
	}

	ctx, cancel := soon()
	defer cancel()
	_, err := llm.Generate(ctx, abstractllm.String("hi"))
	whole := short(err)

	ctx, cancel = soon()
	defer cancel()
	came := ""
	var streamed map[string]any
	for text, err := range llm.StreamText(ctx, abstractllm.String("hi")) {
		came += text
		if err != nil {
			streamed = short(err)
			streamed["partial_is_what_came"] = interop.Failure(err).PartialText == came
			streamed["something_came"] = came != ""
		}
	}
	return map[string]any{"whole": whole, "streamed": streamed}
}

func short(err error) map[string]any {
	told := interop.Brief(err)
	told["retryable"] = interop.Failure(err).Retryable
	return told
}
