// Command chat_with_tools lets a model call a function of this program, and answer with what it returned.
//
//	go run ./chat_with_tools [HOST:PORT] [LLM]
//
// The LLM must take tools: a hosted one, or a local model whose chat template has a place for them.
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

var tool = abstractllm.Tool{
	Name:                 "weather",
	Description:          "Tells the weather in a city",
	ParametersJSONSchema: `{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}`,
}

// weather is what the model can ask for.
func weather(argumentsJSON string) (string, error) {
	var arguments struct{ City string }
	if err := json.Unmarshal([]byte(argumentsJSON), &arguments); err != nil {
		return "", err
	}
	return fmt.Sprintf("It is sunny in %s.", arguments.City), nil
}

func main() {
	flag.Parse()
	address, name := cmp.Or(flag.Arg(0), "127.0.0.1:50051"), flag.Arg(1)
	llm, err := abstractllm.NewRemoteLLM(address, abstractllm.WithLLM(name))
	if err != nil {
		log.Fatal(err)
	}
	defer llm.Close()

	chat := abstractllm.Chat{abstractllm.Message(abstractllm.RoleUser, "What is the weather in Paris?")}
	for {
		answer, err := llm.Complete(context.Background(), chat, abstractllm.WithTools(tool))
		if err != nil {
			log.Fatal(err)
		}
		calls := answer.ToolCalls()
		if len(calls) == 0 {
			fmt.Println(answer.Text)
			return
		}
		chat = append(chat, answer.Message)
		for _, call := range calls {
			fmt.Printf("calls %s with %s\n", call.Name, call.ArgumentsJSON)
			result := abstractllm.ToolResult{ToolCallID: call.ID}
			if result.Content, err = weather(call.ArgumentsJSON); err != nil {
				result.Content, result.IsError = err.Error(), true
			}
			chat = append(chat, abstractllm.ChatMessage{Role: abstractllm.RoleTool, Parts: []abstractllm.Part{result}})
		}
	}
}
