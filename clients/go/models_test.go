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
	"google.golang.org/protobuf/reflect/protoreflect"
)

// managedServer is a server with canned answers to the calls of the model and configuration services.
type managedServer struct {
	pb.UnimplementedModelServiceServer
	pb.UnimplementedConfigServiceServer
	*server
	t      *testing.T
	config *pb.LlmConfig
}

func serveManaged(t *testing.T) *managedServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	m := &managedServer{server: &server{address: listener.Addr().String(), released: make(chan struct{}, 10)}, t: t}
	m.config = fromJSON[pb.LlmConfig](t, configuration)
	m.serveOn(t, listener, func(running *grpc.Server) {
		pb.RegisterModelServiceServer(running, m)
		pb.RegisterConfigServiceServer(running, m)
	})
	return m
}

func (m *managedServer) ListLlms(context.Context, *pb.ListLlmsRequest) (*pb.ListLlmsResponse, error) {
	return fromJSON[pb.ListLlmsResponse](m.t, `{"llms": [
		{"name": "gpt", "provider": "openai", "model": "m", "state": "LLM_STATE_READY"},
		{"name": "local", "provider": "huggingface", "model": "demo", "is_default": true, "state": 99,
			"state_reason": "new", "device": "cpu", "memory_bytes": "0", "running": 2, "queued": 3}]}`), nil
}

func (m *managedServer) GetCapabilities(
	context.Context, *pb.GetCapabilitiesRequest,
) (*pb.GetCapabilitiesResponse, error) {
	return fromJSON[pb.GetCapabilitiesResponse](m.t, `{"capabilities": {
		"streaming": true, "system_prompt": true, "chat": true, "tools": true, "image_input": true,
		"json_object": true, "json_schema": true, "regex": true, "grammar": true, "logprobs": true, "seed": true,
		"token_counting": true, "parameters": ["top_k"], "provider_options": ["a"], "context_window": "512",
		"max_output_tokens": "0", "quantization": "int8", "device": "cpu", "max_concurrent_requests": 8}}`), nil
}

func (m *managedServer) ListCachedModels(
	_ context.Context, request *pb.ListCachedModelsRequest,
) (*pb.ListCachedModelsResponse, error) {
	if request.GetPageToken() == "" {
		return fromJSON[pb.ListCachedModelsResponse](m.t, `{"next_page_token": "2", "models": [
			{"name": "a", "revisions": ["r"], "size_bytes": "7", "last_used_time": "2026-01-02T03:04:05Z",
				"used_by": ["local"], "partial": true}]}`), nil
	}
	return fromJSON[pb.ListCachedModelsResponse](m.t, `{"models": [{"name": "b"}]}`), nil
}

func (m *managedServer) ClearCache(_ context.Context, _ *pb.ClearCacheRequest) (*pb.ClearCacheResponse, error) {
	return &pb.ClearCacheResponse{Removed: []string{"a"}, FreedBytes: 7}, nil
}

func (m *managedServer) PullModel(
	_ *pb.PullModelRequest, sender grpc.ServerStreamingServer[pb.PullModelResponse],
) error {
	for _, report := range []string{
		`{"file": "f", "file_bytes_done": "1", "file_bytes_total": "2", "bytes_done": "3", "bytes_total": "4"}`,
		`{"bytes_done": "4", "done": true}`,
	} {
		check(m.t, sender.Send(fromJSON[pb.PullModelResponse](m.t, report)))
	}
	return nil
}

func (m *managedServer) LoadModel(
	_ *pb.LoadModelRequest, sender grpc.ServerStreamingServer[pb.LoadModelResponse],
) error {
	check(m.t, sender.Send(&pb.LoadModelResponse{State: 2, Phase: "reading", Fraction: new(0.0)}))
	if err := sender.Send(&pb.LoadModelResponse{State: 3}); err != nil {
		return err
	}
	<-sender.Context().Done()
	m.released <- struct{}{}
	return nil
}

func (m *managedServer) UnloadModel(
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

func (m *managedServer) GetConfig(context.Context, *pb.GetConfigRequest) (*pb.GetConfigResponse, error) {
	return &pb.GetConfigResponse{Config: m.config, Etag: "e1"}, nil
}

func (m *managedServer) SetConfig(_ context.Context, request *pb.SetConfigRequest) (*pb.SetConfigResponse, error) {
	return &pb.SetConfigResponse{Config: request.GetConfig(), Etag: "e2"}, nil
}

// expectLastRequest compares the last request with one in JSON.
func expectLastRequest[Message any, Pointer interface {
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

func expectEqual(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// collect collects a sequence.
func collect[Report any](t *testing.T, reports iter.Seq2[Report, error]) (collected []Report) {
	t.Helper()
	for report, err := range reports {
		check(t, err)
		collected = append(collected, report)
	}
	return collected
}

func TestWhatAServerTellsOfItsLLMs(t *testing.T) {
	server := serveManaged(t)
	llm := client(t, server.address, abstractllm.WithLLM("local"))
	infos, err := llm.ListLLMs(t.Context())
	check(t, err)
	expectEqual(t, infos, []abstractllm.LLMInfo{
		{Name: "gpt", Provider: "openai", Model: "m", State: abstractllm.LLMStateReady},
		{
			Name: "local", Provider: "huggingface", Model: "demo", IsDefault: true, State: 99, StateReason: "new",
			Device: "cpu", MemoryBytes: new(int64(0)), Running: 2, Queued: 3,
		},
	})
	capabilities, err := llm.GetCapabilities(t.Context(), "")
	check(t, err)
	expectLastRequest[pb.GetCapabilitiesRequest](t, server.server, `{"llm": "local"}`)
	expectEqual(t, capabilities, &abstractllm.Capabilities{
		Streaming: true, SystemPrompt: true, Chat: true, Tools: true, ImageInput: true, JSONObject: true,
		JSONSchema: true, Regex: true, Grammar: true, Logprobs: true, Seed: true, TokenCounting: true,
		Parameters: []string{"top_k"}, ProviderOptions: []string{"a"}, ContextWindow: new(int64(512)),
		MaxOutputTokens: new(int64(0)), Quantization: "int8", Device: "cpu", MaxConcurrentRequests: new(int32(8)),
	})
	_, err = llm.GetCapabilities(t.Context(), "m")
	check(t, err)
	expectLastRequest[pb.GetCapabilitiesRequest](t, server.server, `{"llm": "local", "model": "m"}`)
}

func TestAllPagesOfTheCacheAreListed(t *testing.T) {
	server := serveManaged(t)
	models, err := client(t, server.address, abstractllm.WithLLM("local")).ListCachedModels(t.Context())
	check(t, err)
	expectEqual(t, models, []abstractllm.CachedModel{
		{
			Name: "a", Revisions: []string{"r"}, SizeBytes: 7, UsedBy: []string{"local"}, Partial: true,
			LastUsedTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		},
		{Name: "b"},
	})
	expectLastRequest[pb.ListCachedModelsRequest](t, server.server, `{"llm": "local", "page_size": 1000, "page_token": "2"}`)
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
		expectEqual(t, cleared, &abstractllm.ClearedModels{Removed: []string{"a"}, FreedBytes: 7})
		expectLastRequest[pb.ClearCacheRequest](t, server.server, want)
	}
	for _, target := range []abstractllm.CacheTarget{{}, {DryRun: true}, {Model: "a", All: true}} {
		if _, err := llm.ClearModelCache(t.Context(), target); !hasClass(err, abstractllm.ErrInvalidRequest) {
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
	expectEqual(t, collect(t, llm.PullModel(t.Context(), "m")), []abstractllm.PullProgress{
		{File: "f", FileBytesDone: 1, FileBytesTotal: new(int64(2)), BytesDone: 3, BytesTotal: new(int64(4))},
		{BytesDone: 4, Done: true},
	})
	expectLastRequest[pb.PullModelRequest](t, server.server, `{"llm": "local", "model": "m"}`)
	expectEqual(t, collect(t, llm.UnloadModel(t.Context(), true)),
		[]abstractllm.UnloadProgress{{State: abstractllm.LLMStateUnloaded, Running: 2}})
	expectLastRequest[pb.UnloadModelRequest](t, server.server, `{"llm": "local", "force": true}`)

	var loading []abstractllm.LoadProgress
	for report, err := range llm.LoadModel(t.Context()) {
		check(t, err)
		loading = append(loading, report)
		if report.State == abstractllm.LLMStateReady {
			break
		}
	}
	expectEqual(t, loading, []abstractllm.LoadProgress{
		{State: abstractllm.LLMStateLoading, Phase: "reading", Fraction: new(0.0)}, {State: abstractllm.LLMStateReady},
	})
	server.awaitRelease(t)
}

func TestTheConfigurationGoesBothWaysFieldByField(t *testing.T) {
	server := serveManaged(t)
	llm := client(t, server.address, abstractllm.WithLLM("local"))
	current, etag, err := llm.GetConfig(t.Context())
	check(t, err)
	expectEqual(t, current, config())
	expectEqual(t, etag, "e1")
	change := abstractllm.ConfigChange{Config: *current, Mask: []string{"model"}, Etag: etag, ValidateOnly: true}
	current, etag, err = llm.SetConfig(t.Context(), change)
	check(t, err)
	expectEqual(t, current, config())
	expectEqual(t, etag, "e2")
	expectLastRequest[pb.SetConfigRequest](t, server.server,
		`{"llm": "local", "config": `+configuration+`, "update_mask": "model", "etag": "e1", "validate_only": true}`)
}

func TestEveryParameterOfTheContractIsADefaultOfAConfiguration(t *testing.T) {
	parameters := (&pb.GenerationParameters{}).ProtoReflect()
	for index := range parameters.Descriptor().Fields().Len() {
		field := parameters.Descriptor().Fields().Get(index)
		if field.Name() != "model" { // which a configuration has beside its parameters
			parameters.Set(field, anyValue(parameters, field))
		}
	}
	server := serveManaged(t)
	server.config = &pb.LlmConfig{Parameters: parameters.Interface().(*pb.GenerationParameters)}
	llm := client(t, server.address)
	current, _, err := llm.GetConfig(t.Context())
	check(t, err)
	_, _, err = llm.SetConfig(t.Context(), abstractllm.ConfigChange{Config: *current})
	check(t, err)
	if sent := server.last().(*pb.SetConfigRequest).GetConfig(); !proto.Equal(sent, server.config) {
		t.Errorf("got  %v\nwant %v", sent, server.config)
	}
}

// anyValue returns a value of a field's type that is not its default.
func anyValue(message protoreflect.Message, field protoreflect.FieldDescriptor) protoreflect.Value {
	value := message.NewField(field)
	switch {
	case field.IsMap():
		value.Map().Set(scalar(field.MapKey()).MapKey(), scalar(field.MapValue()))
	case field.IsList():
		value.List().Append(scalar(field))
	default:
		value = scalar(field)
	}
	return value
}

func scalar(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(0.5)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(3)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(4)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("text")
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(2)
	}
	panic("no value for a field of kind " + field.Kind().String())
}

func TestWhatAConfigurationLeavesUnsetIsNotSent(t *testing.T) {
	server := serveManaged(t)
	llm := client(t, server.address)
	_, _, err := llm.SetConfig(t.Context(), abstractllm.ConfigChange{})
	check(t, err)
	expectLastRequest[pb.SetConfigRequest](t, server.server, `{"config": {}}`)
	_, _, err = llm.SetConfig(t.Context(), abstractllm.ConfigChange{Config: abstractllm.Config{
		Parameters: &abstractllm.Parameters{}, ProviderOptions: map[string]any{},
	}})
	check(t, err)
	expectLastRequest[pb.SetConfigRequest](t, server.server, `{"config": {"parameters": {}, "provider_options": {}}}`)
	_, _, err = llm.SetConfig(t.Context(), abstractllm.ConfigChange{Config: abstractllm.Config{
		ProviderOptions: map[string]any{"a": make(chan int)},
	}})
	if !hasClass(err, abstractllm.ErrInvalidRequest) {
		t.Errorf("got %v", err)
	}
}

func TestTheClientsTimeoutBoundsEveryCallButProgress(t *testing.T) {
	server := serveManaged(t)
	llm := client(t, server.address, abstractllm.WithDefaults(abstractllm.WithTimeout(time.Nanosecond)))
	if _, err := llm.ListLLMs(t.Context()); !hasClass(err, abstractllm.ErrGenerationTimeout) {
		t.Errorf("got %v", err)
	}
	if _, _, err := llm.GetConfig(t.Context()); !hasClass(err, abstractllm.ErrGenerationTimeout) {
		t.Errorf("got %v", err)
	}
	if len(collect(t, llm.UnloadModel(t.Context(), false))) != 1 {
		t.Error("progress did not come")
	}
}
