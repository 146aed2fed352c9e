// Package image shows: the bytes of an image arrive as they were sent.
package image

import (
	"bytes"
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		Prompt    string
		MIMEType  string `json:"mime_type"`
		ByteCycle int    `json:"byte_cycle"`
		Times     int
	}](task)
	cycle := make([]byte, input.ByteCycle)
	for index := range cycle {
		cycle[index] = byte(index)
	}
	llm := task.Connect("mirror")
	defer llm.Close()

	question := abstractllm.ChatMessage{Role: abstractllm.RoleUser, Parts: []abstractllm.Part{
		abstractllm.Text{Text: input.Prompt},
		abstractllm.Image{Data: bytes.Repeat(cycle, input.Times), MIMEType: input.MIMEType},
	}}
	return interop.ReadMirrored(llm.Generate(context.Background(), abstractllm.Chat{question})).Messages[0]
}
