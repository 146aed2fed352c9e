// Package abstractllm is the Go client of AbstractLLM: text from local and hosted language models over one gRPC
// service.
//
//	llm, err := abstractllm.NewRemoteLLM("127.0.0.1:50051")
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer llm.Close()
//	text, err := llm.Generate(ctx, abstractllm.String("What is the capital of France?"), abstractllm.WithTemperature(0))
//
// Every error is an [*Error]: errors.Is compares its class, such as [ErrRateLimited], and errors.As gives its reason,
// field and limit.
// Leaving the loop over a stream, or cancelling the context, ends the generation at the server.
//
// A call that fails as UNAVAILABLE or RESOURCE_EXHAUSTED before its first event is attempted up to five times, when and
// as long as the server says that a retry can help. Generating is not idempotent: a retry after a lost connection may
// generate, and bill, twice. [WithDialOptions] with grpc.WithDisableRetry turns retries off.
package abstractllm

// Version is the version of this client.
const Version = "0.1.0"
