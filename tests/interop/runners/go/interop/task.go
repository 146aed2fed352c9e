// Package interop is what the Go side of every behaviour shares: its task, and the form in which it reports.
package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/abstractllm/abstractllm-go"
)

// Task is what a behaviour is given.
type Task struct {
	// Input is from its case.
	Input json.RawMessage `json:"input"`
	// Servers are addresses, files and tokens by name.
	Servers map[string]string `json:"servers"`
}

// Read decodes the input.
func Read[Input any](task *Task) Input {
	var input Input
	Check(json.Unmarshal(task.Input, &input))
	return input
}

// Connect makes a client of the server "plain" for one of its LLMs.
func (task *Task) Connect(name string, options ...abstractllm.Option) *abstractllm.RemoteLLM {
	return task.ConnectTo("plain", append(options, abstractllm.WithLLM(name))...)
}

// ConnectTo makes a client of one of the servers.
func (task *Task) ConnectTo(server string, options ...abstractllm.Option) *abstractllm.RemoteLLM {
	return Must(abstractllm.NewRemoteLLM(task.Servers[server], options...))
}

// Ask asks the suite for something, and decodes its answer.
func Ask[Answer any](do string, facts map[string]any) Answer {
	question := map[string]any{"do": do}
	for name, fact := range facts {
		question[name] = fact
	}
	Tell("ask", question)
	var reply struct{ Answer Answer }
	Check(json.Unmarshal(Must(ReadLine()), &reply))
	return reply.Answer
}

var input = bufio.NewReader(os.Stdin)

// ReadLine reads one line that the suite wrote.
func ReadLine() ([]byte, error) {
	line, err := input.ReadBytes('\n')
	if err == io.EOF && len(line) > 0 {
		return line, nil
	}
	return line, err
}

// Tell writes one line to the suite: an object with one key.
func Tell(key string, value any) {
	fmt.Println(string(Must(json.Marshal(map[string]any{key: value}))))
}

// Must panics where there is an error, which the runner reports as the behaviour's failure.
func Must[Value any](value Value, err error) Value {
	Check(err)
	return value
}

// Check panics where there is an error.
func Check(err error) {
	if err != nil {
		panic(err)
	}
}
