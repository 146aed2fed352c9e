// Package image shows: the bytes of an image arrive as they were sent.
package image

import (
	"bytes"
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run does it, and reports.
func Run(task *interop.Task) any {
	asked := interop.Read[struct {
		Prompt    string
		MIMEType  string `json:"mime_type"`
		ByteCycle int    `json:"byte_cycle"`
		Times     int
	}](task)
	cycle := make([]byte, asked.ByteCycle)
	for index := range cycle {
		cycle[index] = byte(index)
	}
	llm := task.Connect("mirror")
	defer llm.Close()

	question := abstractllm.ChatMessage{Role: abstractllm.RoleUser, Parts: []abstractllm.Part{
		abstractllm.Text{Text: asked.Prompt},
		abstractllm.Image{Data: bytes.Repeat(cycle, asked.Times), MIMEType: asked.MIMEType},
	}}
	return interop.ReadMirrored(llm.Generate(context.Background(), abstractllm.Chat{question})).Messages[0]
}
