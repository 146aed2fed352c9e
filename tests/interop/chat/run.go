// Package chat shows: a conversation with every role; a system prompt replaces the conversation's own.
package chat

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		LLM, System, User, Assistant, Then, Question string
		SystemPrompt                                 string `json:"system_prompt"`
	}](task)
	ctx := context.Background()
	llm, local := task.Connect(input.LLM), task.Connect("local")
	defer llm.Close()
	defer local.Close()
	chat := abstractllm.Chat{
		abstractllm.Message(abstractllm.RoleSystem, input.System),
		abstractllm.Message(abstractllm.RoleUser, input.User),
		abstractllm.Message(abstractllm.RoleAssistant, input.Assistant),
		abstractllm.Message(abstractllm.RoleUser, input.Then),
	}
	arrived := func(options ...abstractllm.GenerateOption) any {
		return interop.ReadMirrored(llm.Generate(ctx, chat, options...)).Messages
	}
	question := abstractllm.Chat{abstractllm.Message(abstractllm.RoleUser, input.Question)}
	return map[string]any{
		"plain":    arrived(),
		"replaced": arrived(abstractllm.WithSystemPrompt(input.SystemPrompt)),
		"removed":  arrived(abstractllm.WithSystemPrompt("")),
		"answer":   interop.Must(local.Generate(ctx, question, abstractllm.WithTemperature(0))),
	}
}
