// Package cancel shows: a call that its caller cancels ends with a typed error, wherever it is, and leaves nothing
// at the server.
package cancel

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		LLM             string
		Delay           float64
		Words           int
		AfterMoreEvents int `json:"after_more_events"`
	}](task)
	reply := strings.Repeat("word ", input.Words)
	options := abstractllm.WithProviderOptions(map[string]any{"delay": input.Delay, "reply": reply})
	llm := task.Connect(input.LLM)
	defer llm.Close()

	// Before its first event is asked for: nothing is sent.
	_, stop := iter.Pull2(llm.Stream(context.Background(), abstractllm.String("never sent"), options))
	stop()

	next, stop := iter.Pull2(llm.Stream(context.Background(), abstractllm.String("after the first event"), options))
	event, err, _ := next()
	interop.Check(err)
	first := []any{interop.Event(event)["type"]}
	stop()

	midway := 0
	for _, err := range llm.Stream(context.Background(), abstractllm.String("in the middle"), options) {
		interop.Check(err)
		midway++
		if midway == input.AfterMoreEvents {
			break
		}
	}

	// While a call waits for its answer, from another goroutine.
	ctx, cancel := context.WithCancel(context.Background())
	timer := time.AfterFunc(300*time.Millisecond, cancel)
	defer timer.Stop()
	_, err = llm.Generate(ctx, abstractllm.String("whole"), options)
	return map[string]any{"first": first, "midway": midway, "error": interop.Brief(err)}
}
