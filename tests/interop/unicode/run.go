// Package unicode shows: text of every kind comes back as it was sent, whole and as it comes.
package unicode

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run does it, and reports.
func Run(task *interop.Task) any {
	asked := interop.Read[struct{ Texts []string }](task)
	ctx := context.Background()
	echo, mirror := task.Connect("echo"), task.Connect("mirror")
	defer echo.Close()
	defer mirror.Close()

	var told []any
	for _, text := range asked.Texts {
		joined := ""
		for piece, err := range echo.StreamText(ctx, abstractllm.String(text)) {
			interop.Check(err)
			joined += piece
		}
		chat := abstractllm.Chat{abstractllm.Message(abstractllm.RoleUser, text)}
		system := abstractllm.WithSystemPrompt(text)
		arrived := interop.ReadMirrored(mirror.Generate(ctx, abstractllm.String("hi"), system))
		told = append(told, map[string]any{
			"whole":  interop.Must(echo.Generate(ctx, abstractllm.String(text))),
			"joined": joined,
			"chat":   interop.Must(echo.Generate(ctx, chat)),
			"system": arrived.Messages[0].Parts[0]["text"],
		})
	}
	return told
}
