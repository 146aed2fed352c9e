// Package models shows: what the server has: its LLMs, what each can do, and what a prompt takes.
package models

import (
	"context"
	"maps"
	"slices"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run does it, and reports.
func Run(task *interop.Task) any {
	asked := interop.Read[struct {
		LLM    string
		Prompt abstractllm.String
		Local  string
	}](task)
	ctx := context.Background()
	llm, local := task.Connect(asked.LLM), task.Connect(asked.Local)
	defer llm.Close()
	defer local.Close()

	found, defaults := map[string]abstractllm.LLMInfo{}, []string{}
	for _, info := range interop.Must(llm.ListLLMs(ctx)) {
		found[info.Name] = info
		if info.IsDefault {
			defaults = append(defaults, info.Name)
		}
	}
	one := found[asked.Local]
	return map[string]any{
		"llms":     slices.Sorted(maps.Keys(found)),
		"defaults": defaults,
		"local": map[string]any{
			"provider":   one.Provider,
			"model":      one.Model,
			"state":      one.State.String(),
			"device":     one.Device,
			"has_memory": one.MemoryBytes != nil && *one.MemoryBytes > 0,
			"running":    one.Running,
			"queued":     one.Queued,
		},
		"spare":              found["spare"].State.String(),
		"capabilities":       short(interop.Must(llm.GetCapabilities(ctx, ""))),
		"local_capabilities": short(interop.Must(local.GetCapabilities(ctx, ""))),
		"tokens":             interop.Must(llm.CountTokens(ctx, asked.Prompt)),
	}
}

func short(found *abstractllm.Capabilities) any {
	return map[string]any{
		"tools":      found.Tools,
		"regex":      found.Regex,
		"streaming":  found.Streaming,
		"has_window": found.ContextWindow != nil,
		"parameters": slices.Sorted(slices.Values(found.Parameters)),
	}
}
