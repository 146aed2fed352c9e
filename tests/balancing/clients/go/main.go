// The Go program: calls at a steady rate through one client, and tells how each ended.
//
// Its argument is a JSON object: address, load_balancing, rate (calls a second), seconds, token, and service_config, which
// takes the place of the client's own. It writes a line for each call: the second at which it began, the seconds that it
// took, and the answer's first word or the error.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/abstractllm/abstractllm-go"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/weightedroundrobin"
)

type task struct {
	Address       string  `json:"address"`
	LoadBalancing string  `json:"load_balancing"`
	Rate          float64 `json:"rate"`
	Seconds       float64 `json:"seconds"`
	Token         string  `json:"token"`
	ServiceConfig string  `json:"service_config"`
}

func main() {
	var t task
	check(json.Unmarshal([]byte(os.Args[1]), &t))
	options := []abstractllm.Option{abstractllm.WithLoadBalancing(t.LoadBalancing)}
	if t.Token != "" {
		options = append(options, abstractllm.WithToken(t.Token))
	}
	if t.ServiceConfig != "" {
		options = append(options, abstractllm.WithDialOptions(grpc.WithDefaultServiceConfig(t.ServiceConfig)))
	}
	llm, err := abstractllm.NewRemoteLLM(t.Address, options...)
	check(err)
	defer llm.Close()

	out := bufio.NewWriter(os.Stdout)
	var lock sync.Mutex
	var calls sync.WaitGroup
	begin := time.Now()
	pause := time.Duration(float64(time.Second) / t.Rate)
	for count := 0; ; count++ {
		at := time.Duration(count) * pause
		if at.Seconds() >= t.Seconds {
			break
		}
		time.Sleep(time.Until(begin.Add(at)))
		calls.Go(func() {
			began := time.Now()
			text, err := llm.Generate(context.Background(), abstractllm.String("hello"), abstractllm.WithTimeout(60*time.Second))
			outcome, _, _ := strings.Cut(text, " ")
			if err != nil {
				outcome = "error: " + strings.ReplaceAll(err.Error(), "\n", " ")
			}
			lock.Lock()
			defer lock.Unlock()
			fmt.Fprintf(out, "%.3f %.4f %s\n", began.Sub(begin).Seconds(), time.Since(began).Seconds(), outcome)
			_ = out.Flush()
		})
	}
	calls.Wait()
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
