// Command json_schema asks for an answer that a JSON schema describes: whatever the model writes, it is valid.
//
//	go run ./json_schema [HOST:PORT] [LLM]
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"

	"github.com/abstractllm/abstractllm-go"
)

const schema = `{
	"type": "object",
	"properties": {"city": {"type": "string", "maxLength": 20}, "inhabitants": {"type": "integer", "minimum": 0}},
	"required": ["city", "inhabitants"],
	"additionalProperties": false
}`

func main() {
	flag.Parse()
	address, name := cmp.Or(flag.Arg(0), "127.0.0.1:50051"), flag.Arg(1)
	llm, err := abstractllm.NewRemoteLLM(address, abstractllm.WithLLM(name))
	if err != nil {
		log.Fatal(err)
	}
	defer llm.Close()

	text, err := llm.Generate(context.Background(), abstractllm.String("What is the capital of France?"),
		abstractllm.WithTemperature(0),
		abstractllm.WithMaxTokens(100),
		abstractllm.WithResponseFormat(abstractllm.JSONSchemaFormat{Name: "capital", SchemaJSON: schema}),
	)
	if err != nil {
		log.Fatal(err)
	}
	var answer struct {
		City        string
		Inhabitants json.Number // as many digits as the model likes
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.City, answer.Inhabitants)
}
