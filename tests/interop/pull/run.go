// Package pull shows: a model comes from a hub to the server's disk with progress, is listed, and is deleted.
package pull

import (
	"context"
	"slices"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct{ LLM, Model string }](task)
	ctx := context.Background()
	llm := task.Connect(input.LLM)
	defer llm.Close()

	var reports []abstractllm.PullProgress
	var done []int64
	files := map[string]bool{}
	for report, err := range llm.PullModel(ctx, "") {
		interop.Check(err)
		reports = append(reports, report)
		done = append(done, report.BytesDone)
		files[report.File] = true
	}
	last := reports[len(reports)-1]
	listed := []any{}
	for _, model := range interop.Must(llm.ListCachedModels(ctx)) {
		usedBy := append([]string{}, model.UsedBy...)
		listed = append(listed, map[string]any{
			"name":      model.Name,
			"revisions": len(model.Revisions),
			"has_size":  model.SizeBytes > 0,
			"used_by":   usedBy,
			"partial":   model.Partial,
		})
	}
	clear := func(target abstractllm.CacheTarget) any {
		cleared := interop.Must(llm.ClearModelCache(ctx, target))
		return map[string]any{"removed": cleared.Removed, "frees": cleared.FreedBytes > 0}
	}
	count := func() int { return len(interop.Must(llm.ListCachedModels(ctx))) }
	_, noTarget := llm.ClearModelCache(ctx, abstractllm.CacheTarget{})
	var notListed error
	for _, err := range llm.PullModel(ctx, "org/other") {
		notListed = err
	}
	dryRun := clear(abstractllm.CacheTarget{Model: input.Model, DryRun: true})
	stillListed := count()
	removed := clear(abstractllm.CacheTarget{Model: input.Model})
	return map[string]any{
		"progress": map[string]any{
			"first_is_not_done": !reports[0].Done,
			"last": map[string]any{
				"file":     last.File,
				"done":     last.Done,
				"is_whole": last.BytesTotal != nil && last.BytesDone == *last.BytesTotal,
			},
			"files":      files["model.safetensors"],
			"never_back": slices.IsSorted(done),
		},
		"listed":       listed,
		"no_target":    interop.Brief(noTarget),
		"not_listed":   interop.Brief(notListed),
		"dry_run":      dryRun,
		"still_listed": stillListed,
		"removed":      removed,
		"left":         count(),
	}
}
