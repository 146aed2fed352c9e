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

// Run does it, and reports.
func Run(task *interop.Task) any {
	asked := interop.Read[struct {
		LLM                     string
		Streams, Answers, Words int
	}](task)
	llm := task.Connect(asked.LLM)
	defer llm.Close()
	prompt := func(stream int) string {
		return strings.TrimSpace(strings.Repeat(strconv.Itoa(stream)+" ", asked.Words))
	}
	interop.Must(llm.Generate(context.Background(), abstractllm.String("connects")))

	answers := make([]answer, asked.Streams*asked.Answers)
	begin := time.Now()
	var streams sync.WaitGroup
	for stream := range asked.Streams {
		streams.Go(func() {
			for index := range asked.Answers {
				answers[stream*asked.Answers+index] = ask(llm, prompt(stream))
			}
		})
	}
	streams.Wait()
	seconds := time.Since(begin).Seconds()

	right, pieces, firstPieces := 0, 0, []time.Duration{}
	for index, found := range answers {
		interop.Check(found.err)
		if found.text == prompt(index/asked.Answers) {
			right++
		}
		pieces += found.pieces
		firstPieces = append(firstPieces, found.firstPiece)
	}
	slices.Sort(firstPieces)
	return map[string]any{
		"right":               right,
		"pieces":              pieces,
		"seconds":             seconds,
		"first_piece_seconds": firstPieces[len(firstPieces)/2].Seconds(),
	}
}

func ask(llm *abstractllm.RemoteLLM, prompt string) (found answer) {
	begin := time.Now()
	var text strings.Builder
	for piece, err := range llm.StreamText(context.Background(), abstractllm.String(prompt)) {
		if err != nil {
			found.err = err
			break
		}
		if found.pieces == 0 {
			found.firstPiece = time.Since(begin)
		}
		found.pieces++
		text.WriteString(piece)
	}
	found.text = text.String()
	return found
}
