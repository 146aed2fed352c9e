// Package config shows: the configuration of an LLM is read, changed by its etag or only checked, and refused when
// stale or wrong.
package config

import (
	"context"
	"reflect"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run does it, and reports.
func Run(task *interop.Task) any {
	asked := interop.Read[struct {
		LLM          string
		Temperature  float64
		SystemPrompt string `json:"system_prompt"`
		Wrong        float64
	}](task)
	ctx := context.Background()
	llm := task.Connect(asked.LLM)
	defer llm.Close()

	set := func(change abstractllm.ConfigChange) any {
		config, _, err := llm.SetConfig(ctx, change)
		interop.Check(err)
		return short(config)
	}
	failure := func(change abstractllm.ConfigChange) any {
		_, _, err := llm.SetConfig(ctx, change)
		told := interop.Brief(err)
		told["field"] = interop.Failure(err).Field
		return told
	}
	before, etag, err := llm.GetConfig(ctx)
	interop.Check(err)
	checked := set(abstractllm.ConfigChange{Config: temperature(asked.Temperature), ValidateOnly: true})
	again, same, err := llm.GetConfig(ctx)
	interop.Check(err)
	config := temperature(asked.Temperature)
	config.SystemPrompt = &asked.SystemPrompt
	changed := set(abstractllm.ConfigChange{Config: config, Etag: etag})
	_, newEtag, err := llm.GetConfig(ctx)
	interop.Check(err)
	stale := failure(abstractllm.ConfigChange{Config: temperature(0.75), Etag: etag})
	wrong := failure(abstractllm.ConfigChange{Config: temperature(asked.Wrong)})
	cleared := set(abstractllm.ConfigChange{Mask: []string{"system_prompt"}})
	config = temperature(*before.Parameters.Temperature)
	config.SystemPrompt = before.SystemPrompt
	restored := set(abstractllm.ConfigChange{Config: config})
	return map[string]any{
		"before":    short(before),
		"checked":   checked,
		"unchanged": same == etag && reflect.DeepEqual(again, before),
		"changed":   changed,
		"new_etag":  newEtag != "" && newEtag != etag,
		"cleared":   cleared,
		"stale":     stale,
		"wrong":     wrong,
		"restored":  restored,
	}
}

func temperature(value float64) abstractllm.Config {
	return abstractllm.Config{Parameters: &abstractllm.Parameters{Temperature: &value}}
}

func short(config *abstractllm.Config) any {
	told := map[string]any{"model": config.Model}
	if config.SystemPrompt != nil {
		told["system_prompt"] = *config.SystemPrompt
	}
	if config.Parameters != nil && config.Parameters.Temperature != nil {
		told["temperature"] = *config.Parameters.Temperature
	}
	return told
}
