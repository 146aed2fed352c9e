// Package health shows: the standard health service tells of the server and of each LLM, on the client's own
// connection.
package health

import (
	"context"

	"google.golang.org/genproto/googleapis/rpc/code"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		Services []string
		Unknown  string
	}](task)
	llm := task.ConnectTo("plain")
	defer llm.Close()
	health := healthpb.NewHealthClient(llm.Conn())

	check := func(service string) string {
		answer, err := health.Check(context.Background(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			return code.Code(status.Code(err)).String()
		}
		return answer.GetStatus().String()
	}
	var serving []string
	for _, service := range input.Services {
		serving = append(serving, check(service))
	}
	return map[string]any{"serving": serving, "unknown": check(input.Unknown)}
}
