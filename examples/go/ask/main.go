// Command ask asks a question and prints the answer, and the number of tokens that it took.
//
//	go run ./ask [HOST:PORT] [LLM]
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log"

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
	ctx := context.Background()

	text, err := llm.Generate(ctx, abstractllm.String("What is the capital of France?"), abstractllm.WithTemperature(0))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(text)

	answer, err := llm.Complete(ctx, abstractllm.String("What is 7 + 5?"), abstractllm.WithTemperature(0))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s  (%s: %s + %s tokens)\n",
		answer.Text, answer.Model, count(answer.Usage.InputTokens), count(answer.Usage.OutputTokens))
}

// count shows a number that the provider may not tell.
func count(tokens *int64) string {
	if tokens == nil {
		return "?"
	}
	return fmt.Sprint(*tokens)
}
