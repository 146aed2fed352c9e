package abstractllm_test

import (
	"context"
	"iter"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/abstractllm/abstractllm-go"
	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// managed is a server with canned answers to everything beside generation.
type managed struct {
	pb.UnimplementedModelServiceServer
	pb.UnimplementedConfigServiceServer
	*server
	t *testing.T
}

func serveManaged(t *testing.T) *managed {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	found := &managed{server: &server{address: listener.Addr().String(), released: make(chan struct{}, 10)}, t: t}
	found.on(t, listener, func(running *grpc.Server) {
		pb.RegisterModelServiceServer(running, found)
		pb.RegisterConfigServiceServer(running, found)
	})
	return found
}

func (managed *managed) ListLlms(context.Context, *pb.ListLlmsRequest) (*pb.ListLlmsResponse, error) {
	return fromJSON[pb.ListLlmsResponse](managed.t, `{"llms": [
		{"name": "gpt", "provider": "openai", "model": "m", "state": "LLM_STATE_READY"},
		{"name": "local", "provider": "huggingface", "model": "demo", "is_default": true, "state": 99,
			"state_reason": "new", "device": "cpu", "memory_bytes": "0", "running": 2, "queued": 3}]}`), nil
}

func (managed *managed) GetCapabilities(
	context.Context, *pb.GetCapabilitiesRequest,
) (*pb.GetCapabilitiesResponse, error) {
	return fromJSON[pb.GetCapabilitiesResponse](managed.t, `{"capabilities": {
		"streaming": true, "system_prompt": true, "chat": true, "tools": true, "image_input": true,
		"json_object": true, "json_schema": true, "regex": true, "grammar": true, "logprobs": true, "seed": true,
		"token_counting": true, "parameters": ["top_k"], "provider_options": ["a"], "context_window": "512",
		"max_output_tokens": "0", "quantization": "int8", "device": "cpu", "max_concurrent_requests": 8}}`), nil
}

func (managed *managed) ListCachedModels(
	_ context.Context, request *pb.ListCachedModelsRequest,
) (*pb.ListCachedModelsResponse, error) {
	if request.GetPageToken() == "" {
		return fromJSON[pb.ListCachedModelsResponse](managed.t, `{"next_page_token": "2", "models": [
			{"name": "a", "revisions": ["r"], "size_bytes": "7", "last_used_time": "2026-01-02T03:04:05Z",
				"used_by": ["local"], "partial": true}]}`), nil
	}
	return fromJSON[pb.ListCachedModelsResponse](managed.t, `{"models": [{"name": "b"}]}`), nil
}

func (managed *managed) ClearCache(_ context.Context, _ *pb.ClearCacheRequest) (*pb.ClearCacheResponse, error) {
	return &pb.ClearCacheResponse{Removed: []string{"a"}, FreedBytes: 7}, nil
}

func (managed *managed) PullModel(
	_ *pb.PullModelRequest, sender grpc.ServerStreamingServer[pb.PullModelResponse],
) error {
	for _, report := range []string{
		`{"file": "f", "file_bytes_done": "1", "file_bytes_total": "2", "bytes_done": "3", "bytes_total": "4"}`,
		`{"bytes_done": "4", "done": true}`,
	} {
		check(managed.t, sender.Send(fromJSON[pb.PullModelResponse](managed.t, report)))
	}
	return nil
}

func (managed *managed) LoadModel(
	_ *pb.LoadModelRequest, sender grpc.ServerStreamingServer[pb.LoadModelResponse],
) error {
	check(managed.t, sender.Send(&pb.LoadModelResponse{State: 2, Phase: "reading", Fraction: new(0.0)}))
	if err := sender.Send(&pb.LoadModelResponse{State: 3}); err != nil {
		return err
	}
	<-sender.Context().Done()
	managed.released <- struct{}{}
	return nil
}

func (managed *managed) UnloadModel(
	_ *pb.UnloadModelRequest, sender grpc.ServerStreamingServer[pb.UnloadModelResponse],
) error {
	return sender.Send(&pb.UnloadModelResponse{State: 1, Running: 2})
}

const configuration = `{"model": "m", "system_prompt": "s", "timeout": "1.5s", "max_retries": 0,
	"keep_alive": "600s", "quantization": "QUANTIZATION_INT8", "provider_options": {"a": [1, "x"]},
	"parameters": {"temperature": 0, "top_p": 0.5, "top_k": 1, "min_p": 0.25, "max_tokens": 2, "seed": "3",
		"presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.5, "stop": ["END"],
		"logit_bias": {"5": -1}, "top_logprobs": 0, "reasoning_effort": "REASONING_EFFORT_LOW"}}`

func config() *abstractllm.Config {
	return &abstractllm.Config{
		Model: "m", SystemPrompt: new("s"), Timeout: new(1500 * time.Millisecond), MaxRetries: new(int32(0)),
		KeepAlive: new(10 * time.Minute), Quantization: abstractllm.QuantizationInt8,
		ProviderOptions: map[string]any{"a": []any{1.0, "x"}},
		Parameters: &abstractllm.Parameters{
			Temperature: new(0.0), TopP: new(0.5), TopK: new(int32(1)), MinP: new(0.25), MaxTokens: new(int32(2)),
			Seed: new(int64(3)), PresencePenalty: new(0.5), FrequencyPenalty: new(-0.5), RepetitionPenalty: new(1.5),
			Stop: []string{"END"}, LogitBias: map[int32]float64{5: -1}, TopLogprobs: new(int32(0)),
			ReasoningEffort: abstractllm.ReasoningEffortLow,
		},
	}
}

func (managed *managed) GetConfig(context.Context, *pb.GetConfigRequest) (*pb.GetConfigResponse, error) {
	return &pb.GetConfigResponse{Config: fromJSON[pb.LlmConfig](managed.t, configuration), Etag: "e1"}, nil
}

func (managed *managed) SetConfig(_ context.Context, request *pb.SetConfigRequest) (*pb.SetConfigResponse, error) {
	return &pb.SetConfigResponse{Config: request.GetConfig(), Etag: "e2"}, nil
}

// asked compares the last request with one in JSON.
func asked[Message any, Pointer interface {
	*Message
	proto.Message
}](t *testing.T, server *server, want string) {
	t.Helper()
	var wanted Message
	check(t, protojson.Unmarshal([]byte(want), Pointer(&wanted)))
	if !proto.Equal(server.last(), Pointer(&wanted)) {
		t.Errorf("got  %v\nwant %v", server.last(), Pointer(&wanted))
	}
}

func same(t *testing.T, found, want any) {
	t.Helper()
	if !reflect.DeepEqual(found, want) {
		t.Errorf("got  %+v\nwant %+v", found, want)
	}
}

// all collects a sequence.
func all[Report any](t *testing.T, reports iter.Seq2[Report, error]) (found []Report) {
	t.Helper()
	for report, err := range reports {
		check(t, err)
		found = append(found, report)
	}
	return found
}

func TestWhatAServerTellsOfItsLLMs(t *testing.T) {
	server := serveManaged(t)
	llm := client(t, server.address, abstractllm.WithLLM("local"))
	infos, err := llm.ListLLMs(t.Context())
	check(t, err)
	same(t, infos, []abstractllm.LLMInfo{
		{Name: "gpt", Provider: "openai", Model: "m", State: abstractllm.LLMStateReady},
		{
			Name: "local", Provider: "huggingface", Model: "demo", IsDefault: true, State: 99, StateReason: "new",
			Device: "cpu", MemoryBytes: new(int64(0)), Running: 2, Queued: 3,
		},
	})
	capabilities, err := llm.GetCapabilities(t.Context(), "")
	check(t, err)
	asked[pb.GetCapabilitiesRequest](t, server.server, `{"llm": "local"}`)
	same(t, capabilities, &abstractllm.Capabilities{
		Streaming: true, SystemPrompt: true, Chat: true, Tools: true, ImageInput: true, JSONObject: true,
		JSONSchema: true, Regex: true, Grammar: true, Logprobs: true, Seed: true, TokenCounting: true,
		Parameters: []string{"top_k"}, ProviderOptions: []string{"a"}, ContextWindow: new(int64(512)),
		MaxOutputTokens: new(int64(0)), Quantization: "int8", Device: "cpu", MaxConcurrentRequests: new(int32(8)),
	})
	_, err = llm.GetCapabilities(t.Context(), "m")
	check(t, err)
	asked[pb.GetCapabilitiesRequest](t, server.server, `{"llm": "local", "model": "m"}`)
}

func TestAllPagesOfTheCacheAreListed(t *testing.T) {
	server := serveManaged(t)
	models, err := client(t, server.address, abstractllm.WithLLM("local")).ListCachedModels(t.Context())
	check(t, err)
	same(t, models, []abstractllm.CachedModel{
		{
			Name: "a", Revisions: []string{"r"}, SizeBytes: 7, UsedBy: []string{"local"}, Partial: true,
			LastUsedTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		},
		{Name: "b"},
	})
	asked[pb.ListCachedModelsRequest](t, server.server, `{"llm": "local", "page_size": 1000, "page_token": "2"}`)
}

func TestClearingTheCacheNeedsATarget(t *testing.T) {
	server := serveManaged(t)
	llm := client(t, server.address)
	for want, target := range map[string]abstractllm.CacheTarget{
		`{"model": "a"}`:               {Model: "a"},
		`{"all": {}, "dry_run": true}`: {All: true, DryRun: true},
	} {
		cleared, err := llm.ClearModelCache(t.Context(), target)
		check(t, err)
		same(t, cleared, &abstractllm.ClearedModels{Removed: []string{"a"}, FreedBytes: 7})
		asked[pb.ClearCacheRequest](t, server.server, want)
	}
	for _, target := range []abstractllm.CacheTarget{{}, {DryRun: true}, {Model: "a", All: true}} {
		if _, err := llm.ClearModelCache(t.Context(), target); !is(err, abstractllm.ErrInvalidRequest) {
			t.Errorf("%+v: got %v", target, err)
		}
	}
	if server.calls() != 2 {
		t.Errorf("%d calls instead of 2", server.calls())
	}
}

func TestProgressComesAsItIsMade(t *testing.T) {
	server := serveManaged(t)
	llm := client(t, server.address, abstractllm.WithLLM("local"))
	same(t, all(t, llm.PullModel(t.Context(), "m")), []abstractllm.PullProgress{
		{File: "f", FileBytesDone: 1, FileBytesTotal: new(int64(2)), BytesDone: 3, BytesTotal: new(int64(4))},
		{BytesDone: 4, Done: true},
	})
	asked[pb.PullModelRequest](t, server.server, `{"llm": "local", "model": "m"}`)
	same(t, all(t, llm.UnloadModel(t.Context(), true)),
		[]abstractllm.UnloadProgress{{State: abstractllm.LLMStateUnloaded, Running: 2}})
	asked[pb.UnloadModelRequest](t, server.server, `{"llm": "local", "force": true}`)

	var loading []abstractllm.LoadProgress
	for report, err := range llm.LoadModel(t.Context()) {
		check(t, err)
		loading = append(loading, report)
		if report.State == abstractllm.LLMStateReady {
			break
		}
	}
	same(t, loading, []abstractllm.LoadProgress{
		{State: abstractllm.LLMStateLoading, Phase: "reading", Fraction: new(0.0)}, {State: abstractllm.LLMStateReady},
	})
	server.awaitRelease(t)
}

func TestTheConfigurationGoesBothWaysFieldByField(t *testing.T) {
	server := serveManaged(t)
	llm := client(t, server.address, abstractllm.WithLLM("local"))
	found, etag, err := llm.GetConfig(t.Context())
	check(t, err)
	same(t, found, config())
	same(t, etag, "e1")
	change := abstractllm.ConfigChange{Config: *found, Mask: []string{"model"}, Etag: etag, ValidateOnly: true}
	found, etag, err = llm.SetConfig(t.Context(), change)
	check(t, err)
	same(t, found, config())
	same(t, etag, "e2")
	asked[pb.SetConfigRequest](t, server.server,
		`{"llm": "local", "config": `+configuration+`, "update_mask": "model", "etag": "e1", "validate_only": true}`)
}

func TestWhatAConfigurationLeavesUnsetIsNotSent(t *testing.T) {
	server := serveManaged(t)
	llm := client(t, server.address)
	_, _, err := llm.SetConfig(t.Context(), abstractllm.ConfigChange{})
	check(t, err)
	asked[pb.SetConfigRequest](t, server.server, `{"config": {}}`)
	_, _, err = llm.SetConfig(t.Context(), abstractllm.ConfigChange{Config: abstractllm.Config{
		Parameters: &abstractllm.Parameters{}, ProviderOptions: map[string]any{},
	}})
	check(t, err)
	asked[pb.SetConfigRequest](t, server.server, `{"config": {"parameters": {}, "provider_options": {}}}`)
	_, _, err = llm.SetConfig(t.Context(), abstractllm.ConfigChange{Config: abstractllm.Config{
		ProviderOptions: map[string]any{"a": make(chan int)},
	}})
	if !is(err, abstractllm.ErrInvalidRequest) {
		t.Errorf("got %v", err)
	}
}

func TestTheClientsTimeoutBoundsEveryCallButProgress(t *testing.T) {
	server := serveManaged(t)
	llm := client(t, server.address, abstractllm.WithDefaults(abstractllm.WithTimeout(time.Nanosecond)))
	if _, err := llm.ListLLMs(t.Context()); !is(err, abstractllm.ErrGenerationTimeout) {
		t.Errorf("got %v", err)
	}
	if _, _, err := llm.GetConfig(t.Context()); !is(err, abstractllm.ErrGenerationTimeout) {
		t.Errorf("got %v", err)
	}
	if len(all(t, llm.UnloadModel(t.Context(), false))) != 1 {
		t.Error("progress did not come")
	}
}
