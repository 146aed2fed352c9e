// Command stream prints an answer as it comes, first its text alone, then every event; then two answers at once.
//
//	go run ./stream [HOST:PORT] [LLM]
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log"
	"sync"

	"github.com/abstractllm/abstractllm-go"
)

func main() {
	flag.Parse()
	address, name := cmp.Or(flag.Arg(0), "127.0.0.1:50051"), flag.Arg(1)
	llm, err := abstractllm.NewRemoteLLM(address, abstractllm.WithLLM(name))
	if err != nil {
		log.Fatal(err)
	}
	defer llm.Close()
	ctx, exact := context.Background(), abstractllm.WithTemperature(0)

	for piece, err := range llm.StreamText(ctx, abstractllm.String("Count from 1 to 10."), exact) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(piece)
	}
	fmt.Println()

	for event, err := range llm.Stream(ctx, abstractllm.String("What is the opposite of hot?"), exact) {
		if err != nil {
			log.Fatal(err)
		}
		switch event := event.(type) {
		case abstractllm.TextDelta:
			fmt.Print(event.Text)
		case abstractllm.Finished:
			fmt.Printf("  (%s", event.FinishReason)
			if first := event.Timing.FirstToken; first != nil {
				fmt.Printf(", first token after %.3f s", first.Seconds())
			}
			fmt.Println(")")
		}
	}

	// Two questions at the same time over one connection.
	questions := []abstractllm.String{"What is the capital of Italy?", "What is the capital of Japan?"}
	answers := make([]string, len(questions))
	var running sync.WaitGroup
	for index, question := range questions {
		running.Go(func() {
			text, err := llm.Generate(ctx, question, exact)
			if err != nil {
				log.Fatal(err)
			}
			answers[index] = text
		})
	}
	running.Wait()
	for _, text := range answers {
		fmt.Println(text)
	}
}
