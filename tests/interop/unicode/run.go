// Package unicode shows: text of every kind comes back as it was sent, whole and as it comes.
package unicode

import (
	"context"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct{ Texts []string }](task)
	ctx := context.Background()
	echo, mirror := task.Connect("echo"), task.Connect("mirror")
	defer echo.Close()
	defer mirror.Close()

	var report []any
	for _, text := range input.Texts {
		joined := ""
		for piece, err := range echo.StreamText(ctx, abstractllm.String(text)) {
			interop.Check(err)
			joined += piece
		}
		chat := abstractllm.Chat{abstractllm.Message(abstractllm.RoleUser, text)}
		system := abstractllm.WithSystemPrompt(text)
		arrived := interop.ReadMirrored(mirror.Generate(ctx, abstractllm.String("hi"), system))
		report = append(report, map[string]any{
			"whole":  interop.Must(echo.Generate(ctx, abstractllm.String(text))),
			"joined": joined,
			"chat":   interop.Must(echo.Generate(ctx, chat)),
			"system": arrived.Messages[0].Parts[0]["text"],
		})
	}
	return report
}
