// Package schema shows: every kind of answer format arrives, and binds a real model.
package schema

import (
	"context"
	"encoding/json"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		Prompt  abstractllm.String
		Name    string
		Schema  json.RawMessage
		Regex   abstractllm.RegexFormat
		Grammar abstractllm.GrammarFormat
	}](task)
	ctx := context.Background()
	mirror := task.Connect("mirror")
	local := task.Connect("local", abstractllm.WithDefaults(abstractllm.WithTemperature(0), abstractllm.WithMaxTokens(50)))
	defer mirror.Close()
	defer local.Close()
	arrived := func(format abstractllm.ResponseFormat) any {
		answer := interop.ReadMirrored(mirror.Generate(ctx, input.Prompt, abstractllm.WithResponseFormat(format)))
		return answer.ResponseFormat
	}
	held := func(format abstractllm.ResponseFormat) string {
		return interop.Must(local.Generate(ctx, input.Prompt, abstractllm.WithResponseFormat(format)))
	}

	schema := abstractllm.JSONSchemaFormat{Name: input.Name, SchemaJSON: string(input.Schema)}
	strict := abstractllm.JSONSchemaFormat{Name: input.Name, SchemaJSON: "{}", Strict: new(true)}
	return map[string]any{
		"json_object": arrived(abstractllm.JSONObjectFormat{}),
		"json_schema": arrived(strict),
		"regex":       arrived(input.Regex),
		"grammar":     arrived(input.Grammar),
		"real": map[string]any{
			"object": json.RawMessage(held(schema)),
			"digits": held(input.Regex),
			"word":   held(input.Grammar),
		},
	}
}
