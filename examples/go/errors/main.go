// Command errors shows errors that a program can act on: a class, a reason, the field, its limit.
//
//	go run ./errors [HOST:PORT] [LLM]
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
	nobody, err := abstractllm.NewRemoteLLM(address, abstractllm.WithLLM("nobody"))
	if err != nil {
		log.Fatal(err)
	}
	defer nobody.Close()
	ctx, prompt := context.Background(), abstractllm.String("Hi")

	_, err = llm.Generate(ctx, prompt, abstractllm.WithTemperature(5))
	if failure, ok := errors.AsType[*abstractllm.Error](err); ok && errors.Is(err, abstractllm.ErrInvalidRequest) {
		fmt.Printf("%s: %s must be %s, not %s\n", failure.Reason, failure.Field, failure.Limit, failure.Requested)
	}

	_, err = nobody.Generate(ctx, prompt, abstractllm.WithTimeout(30*time.Second))
	if errors.Is(err, abstractllm.ErrUnknownLLM) {
		fmt.Println(err)
	} else if failure, ok := errors.AsType[*abstractllm.Error](err); ok { // any other error
		fmt.Printf("%s, worth a retry: %t, in the server's log under %s\n",
			failure.Reason, failure.Retryable, failure.RequestID)
	}
}
