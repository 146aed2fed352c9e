// Package many shows: sixty-four streams at once over one client, each with its own answer.
package many

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// answer is how one answer came.
type answer struct {
	text       string
	pieces     int
	firstPiece time.Duration
	err        error
}

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		LLM                     string
		Streams, Answers, Words int
	}](task)
	llm := task.Connect(input.LLM)
	defer llm.Close()
	prompt := func(stream int) string {
		return strings.TrimSpace(strings.Repeat(strconv.Itoa(stream)+" ", input.Words))
	}
	interop.Must(llm.Generate(context.Background(), abstractllm.String("connects")))

	answers := make([]answer, input.Streams*input.Answers)
	begin := time.Now()
	var streams sync.WaitGroup
	for stream := range input.Streams {
		streams.Go(func() {
			for index := range input.Answers {
				answers[stream*input.Answers+index] = ask(llm, prompt(stream))
			}
		})
	}
	streams.Wait()
	seconds := time.Since(begin).Seconds()

	right, pieces, firstPieces := 0, 0, []time.Duration{}
	for index, answer := range answers {
		interop.Check(answer.err)
		if answer.text == prompt(index/input.Answers) {
			right++
		}
		pieces += answer.pieces
		firstPieces = append(firstPieces, answer.firstPiece)
	}
	slices.Sort(firstPieces)
	return map[string]any{
		"right":               right,
		"pieces":              pieces,
		"seconds":             seconds,
		"first_piece_seconds": firstPieces[len(firstPieces)/2].Seconds(),
	}
}

func ask(llm *abstractllm.RemoteLLM, prompt string) (result answer) {
	begin := time.Now()
	var text strings.Builder
	for piece, err := range llm.StreamText(context.Background(), abstractllm.String(prompt)) {
		if err != nil {
			result.err = err
			break
		}
		if result.pieces == 0 {
			result.firstPiece = time.Since(begin)
		}
		result.pieces++
		text.WriteString(piece)
	}
	result.text = text.String()
	return result
}
