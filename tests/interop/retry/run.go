// Package retry shows: calls are tried again when and as often as the server says, also a large one, and over a
// restart of the server.
package retry

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[map[string]json.RawMessage](task)
	var padding int
	interop.Check(json.Unmarshal(input["padding"], &padding))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	llm, restarted := task.Connect("flaky"), task.ConnectTo("restarted")
	defer llm.Close()
	defer restarted.Close()

	ask := func(name string, wanted []byte) string {
		text, err := llm.Generate(ctx, abstractllm.String(wanted), abstractllm.WithRequestID(name))
		if err != nil {
			return string(interop.Failure(err).Reason)
		}
		return text
	}
	report := map[string]any{}
	for _, name := range []string{"overloaded", "always", "quota", "invalid"} {
		report[name] = ask(name, input[name])
	}
	var pieces []string
	unavailable := abstractllm.String(input["unavailable"])
	for text, err := range llm.StreamText(ctx, unavailable, abstractllm.WithRequestID("unavailable")) {
		interop.Check(err)
		pieces = append(pieces, text)
	}
	report["unavailable"] = pieces
	var large map[string]any
	interop.Check(json.Unmarshal(input["overloaded"], &large))
	large["padding"] = strings.Repeat("x", padding)
	report["large"] = ask("large", interop.Must(json.Marshal(large)))

	before := interop.Must(restarted.Generate(ctx, abstractllm.String("before")))
	interop.Ask[bool]("restart", map[string]any{"seconds": input["down"]})
	report["restarted"] = []string{before, interop.Must(restarted.Generate(ctx, abstractllm.String("after")))}
	return report
}
