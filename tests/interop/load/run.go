// Package load shows: a model is loaded and unloaded with progress, and not while it is in use.
package load

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		LLM    string
		Prompt abstractllm.String
	}](task)
	ctx := context.Background()
	llm := task.Connect(input.LLM, abstractllm.WithDefaults(abstractllm.WithTemperature(0)))
	echo := task.Connect("echo")
	defer llm.Close()
	defer echo.Close()

	states, fractions := map[string]bool{}, true
	for report, err := range llm.LoadModel(ctx) {
		interop.Check(err)
		states[report.State.String()] = true
		fractions = fractions && (report.Fraction == nil || 0 <= *report.Fraction && *report.Fraction <= 1)
	}
	ready := stateOf(ctx, llm)
	answer := interop.Must(llm.Generate(ctx, abstractllm.String("What is the capital of France?")))

	next, stop := iter.Pull2(llm.Stream(ctx, input.Prompt,
		abstractllm.WithLogitBias(map[int32]float64{4: -100}), abstractllm.WithMaxTokens(2000)))
	_, err, _ := next()
	interop.Check(err)
	inUse := failure(llm.UnloadModel(ctx, false))
	stop()
	var last abstractllm.UnloadProgress
	for report, err := range llm.UnloadModel(ctx, true) {
		interop.Check(err)
		last = report
	}
	return map[string]any{
		"loading": map[string]any{
			"states":                  slices.Sorted(maps.Keys(states)),
			"fractions_are_fractions": fractions,
		},
		"ready":       ready,
		"answer":      answer,
		"in_use":      inUse,
		"unloading":   last.State.String(),
		"after":       stateOf(ctx, llm),
		"unsupported": failure(echo.UnloadModel(ctx, false)),
	}
}

func stateOf(ctx context.Context, llm *abstractllm.RemoteLLM) string {
	for _, info := range interop.Must(llm.ListLLMs(ctx)) {
		if info.Name == llm.Name() {
			return info.State.String()
		}
	}
	return "not listed"
}

func failure(reports iter.Seq2[abstractllm.UnloadProgress, error]) any {
	count := 0
	for _, err := range reports {
		if err != nil {
			return interop.Brief(err)
		}
		count++
	}
	return count
}
