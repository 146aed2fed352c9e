// Package models shows: what the server has: its LLMs, what each can do, and what a prompt takes.
package models

import (
	"context"
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
		Local  string
	}](task)
	ctx := context.Background()
	llm, local := task.Connect(input.LLM), task.Connect(input.Local)
	defer llm.Close()
	defer local.Close()

	llms, defaults := map[string]abstractllm.LLMInfo{}, []string{}
	for _, info := range interop.Must(llm.ListLLMs(ctx)) {
		llms[info.Name] = info
		if info.IsDefault {
			defaults = append(defaults, info.Name)
		}
	}
	info := llms[input.Local]
	return map[string]any{
		"llms":     slices.Sorted(maps.Keys(llms)),
		"defaults": defaults,
		"local": map[string]any{
			"provider":   info.Provider,
			"model":      info.Model,
			"state":      info.State.String(),
			"device":     info.Device,
			"has_memory": info.MemoryBytes != nil && *info.MemoryBytes > 0,
			"running":    info.Running,
			"queued":     info.Queued,
		},
		"spare":              llms["spare"].State.String(),
		"capabilities":       short(interop.Must(llm.GetCapabilities(ctx, ""))),
		"local_capabilities": short(interop.Must(local.GetCapabilities(ctx, ""))),
		"tokens":             interop.Must(llm.CountTokens(ctx, input.Prompt)),
	}
}

func short(capabilities *abstractllm.Capabilities) any {
	return map[string]any{
		"tools":      capabilities.Tools,
		"regex":      capabilities.Regex,
		"streaming":  capabilities.Streaming,
		"has_window": capabilities.ContextWindow != nil,
		"parameters": slices.Sorted(slices.Values(capabilities.Parameters)),
	}
}
