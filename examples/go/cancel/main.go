// Command cancel leaves an answer before its end: the server stops generating it at once.
//
//	go run ./cancel [HOST:PORT] [LLM]
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"time"

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
	prompt := abstractllm.String("Count from 1 to 20.")

	number := 0
	for piece, err := range llm.StreamText(ctx, prompt, exact) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(piece)
		if number++; number == 5 {
			break // ends the generation, as a return or a cancelled context would
		}
	}
	fmt.Println(" ... enough")

	soon, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_, err = llm.Generate(soon, prompt, exact)
	if errors.Is(err, abstractllm.ErrGenerationTimeout) {
		fmt.Println("too late:", err)
	}
}
