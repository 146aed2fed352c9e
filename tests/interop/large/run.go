// Package large shows: a prompt of 8 MiB arrives and an answer of 4 MiB comes back, in one message of 8 MiB; beyond
// 16 MiB either is refused by name.
package large

import (
	"context"
	"strings"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		Letter       string
		PromptBytes  int `json:"prompt_bytes"`
		AnswerBytes  int `json:"answer_bytes"`
		TooManyBytes int `json:"too_many_bytes"`
	}](task)
	ctx := context.Background()
	mirror, echo := task.Connect("mirror"), task.Connect("echo")
	defer mirror.Close()
	defer echo.Close()
	repeated := func(bytes int) abstractllm.String { return abstractllm.String(strings.Repeat(input.Letter, bytes)) }
	refusal := func(bytes int) any {
		_, err := echo.Generate(ctx, repeated(bytes))
		return interop.Error(err)
	}

	answer := interop.Must(echo.Generate(ctx, repeated(input.AnswerBytes)))
	streamed := 0
	for text, err := range echo.StreamText(ctx, repeated(input.PromptBytes)) {
		interop.Check(err)
		streamed += len(text)
	}
	arrived := interop.ReadMirrored(mirror.Generate(ctx, repeated(input.PromptBytes)))
	return map[string]any{
		"arrived":         arrived.Messages[0].Parts[0]["text"],
		"came_back":       interop.Summary([]byte(answer)),
		"streamed":        streamed,
		"request_refused": refusal(input.TooManyBytes),
		"answer_refused":  refusal(input.PromptBytes),
	}
}
