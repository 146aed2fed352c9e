// Package interop has what every behaviour in Go uses: its task, and the form of its report.
package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"

	"github.com/abstractllm/abstractllm-go"
)

// Task is the input of a behaviour, and the servers that it runs against.
type Task struct {
	// Input is the "input" of the behaviour's case.json.
	Input json.RawMessage `json:"input"`
	// Servers are the addresses, files and tokens, by name.
	Servers map[string]string `json:"servers"`
}

// Read decodes the input.
func Read[Input any](task *Task) Input {
	var input Input
	Check(json.Unmarshal(task.Input, &input))
	return input
}

// Connect makes a client of the server "plain" for one of its LLMs.
func (t *Task) Connect(name string, options ...abstractllm.Option) *abstractllm.RemoteLLM {
	return t.ConnectTo("plain", append(options, abstractllm.WithLLM(name))...)
}

// ConnectTo makes a client of one of the servers.
func (t *Task) ConnectTo(server string, options ...abstractllm.Option) *abstractllm.RemoteLLM {
	return Must(abstractllm.NewRemoteLLM(t.Servers[server], options...))
}

// Ask makes the suite do something that a client cannot do, and decodes its answer.
func Ask[Answer any](action string, arguments map[string]any) Answer {
	request := map[string]any{"do": action}
	maps.Copy(request, arguments)
	Tell("ask", request)
	var reply struct{ Answer Answer }
	Check(json.Unmarshal(Must(ReadLine()), &reply))
	return reply.Answer
}

var standardInput = bufio.NewReader(os.Stdin)

// ReadLine reads one line that the suite wrote.
func ReadLine() ([]byte, error) {
	line, err := standardInput.ReadBytes('\n')
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
