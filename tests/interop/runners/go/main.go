// The Go runner: runs the behaviours that it is asked for on the standard input.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"

	"interop/cancel"
	"interop/chat"
	"interop/config"
	"interop/deadline"
	"interop/errors"
	"interop/growth"
	"interop/health"
	"interop/image"
	"interop/join"
	"interop/large"
	"interop/leave"
	"interop/load"
	"interop/many"
	"interop/models"
	"interop/parameters"
	"interop/pull"
	"interop/retry"
	"interop/runners/go/interop"
	"interop/schema"
	"interop/security"
	"interop/stream"
	"interop/tools"
	"interop/trace"
	"interop/unary"
	"interop/unicode"
)

var behaviours = map[string]func(*interop.Task) any{
	"cancel":     cancel.Run,
	"chat":       chat.Run,
	"config":     config.Run,
	"deadline":   deadline.Run,
	"errors":     errors.Run,
	"growth":     growth.Run,
	"health":     health.Run,
	"image":      image.Run,
	"join":       join.Run,
	"large":      large.Run,
	"leave":      leave.Run,
	"load":       load.Run,
	"many":       many.Run,
	"models":     models.Run,
	"parameters": parameters.Run,
	"pull":       pull.Run,
	"retry":      retry.Run,
	"schema":     schema.Run,
	"security":   security.Run,
	"stream":     stream.Run,
	"tools":      tools.Run,
	"trace":      trace.Run,
	"unary":      unary.Run,
	"unicode":    unicode.Run,
}

func main() {
	for {
		line, err := interop.ReadLine()
		if err == io.EOF {
			return
		}
		interop.Check(err)
		run(line)
	}
}

// run runs one behaviour and tells what it observed, or how it failed.
func run(line []byte) {
	defer func() {
		if failure := recover(); failure != nil {
			interop.Tell("failed", fmt.Sprintf("%v\n%s", failure, debug.Stack()))
		}
	}()
	var request struct {
		Behaviour string `json:"behaviour"`
		interop.Task
	}
	interop.Check(json.Unmarshal(line, &request))
	behaviour, ok := behaviours[request.Behaviour]
	if !ok {
		panic("no such behaviour: " + request.Behaviour)
	}
	interop.Tell("observed", behaviour(&request.Task))
}
