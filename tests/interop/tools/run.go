// Package tools shows: tools go in, calls come out, results go back, opaque state with them.
package tools

import (
	"context"
	"encoding/hex"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		Tool struct {
			Name, Description    string
			ParametersJSONSchema string `json:"parameters_json_schema"`
		}
		Prompt string
		Script []any
		Result string
		State  string
	}](task)
	ctx := context.Background()
	echo, mirror := task.Connect("echo"), task.Connect("mirror")
	defer echo.Close()
	defer mirror.Close()
	prompt, tools := abstractllm.String(input.Prompt), abstractllm.WithTools(abstractllm.Tool(input.Tool))
	script := abstractllm.WithProviderOptions(map[string]any{"script": input.Script})
	chosen := func(choice abstractllm.ToolChoice) any {
		answer := interop.ReadMirrored(mirror.Generate(ctx, prompt, tools, abstractllm.WithToolChoice(choice)))
		return answer.ToolChoice
	}

	answer := interop.Must(echo.Complete(ctx, prompt, tools, script))
	call := answer.ToolCalls()[0]
	auto := interop.ReadMirrored(mirror.Generate(ctx, prompt, tools))
	state := interop.Must(hex.DecodeString(input.State))
	chat := abstractllm.Chat{
		abstractllm.Message(abstractllm.RoleUser, input.Prompt),
		{Role: abstractllm.RoleAssistant, Parts: []abstractllm.Part{
			abstractllm.Reasoning{Text: answer.Reasoning(), ProviderState: state}, call,
		}},
		{Role: abstractllm.RoleTool, Parts: []abstractllm.Part{
			abstractllm.ToolResult{ToolCallID: call.ID, Content: input.Result},
		}},
	}
	return map[string]any{
		"call":          interop.Part(call)["tool_call"],
		"finish_reason": answer.FinishReason.String(),
		"auto":          map[string]any{"tools": auto.Tools, "tool_choice": auto.ToolChoice},
		"required":      chosen(abstractllm.ToolChoice{Mode: abstractllm.ToolChoiceRequired}),
		"named":         chosen(abstractllm.ToolChoice{Name: input.Tool.Name}),
		"returned":      interop.ReadMirrored(mirror.Generate(ctx, chat, tools)).Messages,
	}
}
