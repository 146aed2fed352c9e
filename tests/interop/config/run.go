// Package config shows: the configuration of an LLM is read, changed by its etag or only checked, and refused when
// stale or wrong.
package config

import (
	"context"
	"reflect"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		LLM          string
		Temperature  float64
		SystemPrompt string `json:"system_prompt"`
		Wrong        float64
	}](task)
	ctx := context.Background()
	llm := task.Connect(input.LLM)
	defer llm.Close()

	set := func(change abstractllm.ConfigChange) any {
		config, _, err := llm.SetConfig(ctx, change)
		interop.Check(err)
		return short(config)
	}
	failure := func(change abstractllm.ConfigChange) any {
		_, _, err := llm.SetConfig(ctx, change)
		report := interop.Brief(err)
		report["field"] = interop.Failure(err).Field
		return report
	}
	before, etag, err := llm.GetConfig(ctx)
	interop.Check(err)
	checked := set(abstractllm.ConfigChange{Config: temperature(input.Temperature), ValidateOnly: true})
	again, same, err := llm.GetConfig(ctx)
	interop.Check(err)
	config := temperature(input.Temperature)
	config.SystemPrompt = &input.SystemPrompt
	changed := set(abstractllm.ConfigChange{Config: config, Etag: etag})
	_, newEtag, err := llm.GetConfig(ctx)
	interop.Check(err)
	stale := failure(abstractllm.ConfigChange{Config: temperature(0.75), Etag: etag})
	wrong := failure(abstractllm.ConfigChange{Config: temperature(input.Wrong)})
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
	report := map[string]any{"model": config.Model}
	if config.SystemPrompt != nil {
		report["system_prompt"] = *config.SystemPrompt
	}
	if config.Parameters != nil && config.Parameters.Temperature != nil {
		report["temperature"] = *config.Parameters.Temperature
	}
	return report
}
