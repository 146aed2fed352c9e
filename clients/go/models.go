package abstractllm

import (
	"context"
	"iter"
	"time"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// pageSize is the server's largest page of cached models.
const pageSize = 1000

// Capabilities are what an LLM can do; a request can be checked against it before it is sent.
type Capabilities struct {
	Streaming, SystemPrompt, Chat, Tools, ImageInput bool
	JSONObject, JSONSchema, Regex, Grammar           bool
	Logprobs, Seed, TokenCounting                    bool
	// Parameters are the generation parameters that it honours.
	Parameters []string
	// ProviderOptions are the keys that WithProviderOptions may give.
	ProviderOptions []string
	// ContextWindow is the tokens that prompt and answer may have together; nil: not known.
	ContextWindow *int64
	// MaxOutputTokens is the tokens that an answer may have; nil: not known, or bounded by ContextWindow alone.
	MaxOutputTokens *int64
	// Quantization is how the weights are quantized, such as "int8"; empty: not at all, or a hosted LLM.
	Quantization string
	// Device is where it runs, such as "cuda:0"; empty for a hosted LLM.
	Device string
	// MaxConcurrentRequests is how many requests can be answered at the same time; nil: not known.
	MaxConcurrentRequests *int32
}

// LLMInfo is a named LLM of a server, and how it is.
type LLMInfo struct {
	Name, Provider, Model string
	IsDefault             bool
	State                 LLMState
	// StateReason tells why it is in this state.
	StateReason string
	// Device is where it runs; empty for a hosted LLM.
	Device string
	// MemoryBytes is what it holds on its device; nil: not known, or none of the server's.
	MemoryBytes *int64
	// Running and Queued count the requests that are answered, and that wait.
	Running, Queued int
}

// CachedModel is a model on the server's disk.
type CachedModel struct {
	Name      string
	Revisions []string
	SizeBytes int64
	// LastUsedTime and LastModifiedTime are zero where they are not known.
	LastUsedTime, LastModifiedTime time.Time
	// UsedBy names the LLMs that have it loaded, or are loading it.
	UsedBy []string
	// Partial is true while a download is not complete.
	Partial bool
}

// CacheTarget is what is to be deleted from a cache: one model, or all of them.
type CacheTarget struct {
	Model string
	All   bool
	// DryRun only tells what would be deleted.
	DryRun bool
}

// ClearedModels are what was deleted from a cache, or, on a dry run, what would be.
type ClearedModels struct {
	Removed    []string
	FreedBytes int64
}

// PullProgress is how far a download is.
type PullProgress struct {
	// File is what this report is about; empty where it is about the whole alone.
	File           string
	FileBytesDone  int64
	FileBytesTotal *int64
	BytesDone      int64
	BytesTotal     *int64
	// Done is true in the last report: the model is whole.
	Done bool
}

// LoadProgress is how far the loading of a model is.
type LoadProgress struct {
	// State is LLMStateReady in the last report.
	State LLMState
	Phase string
	// Fraction is from 0 to 1; nil: not known.
	Fraction *float64
}

// UnloadProgress is how far the unloading of a model is.
type UnloadProgress struct {
	// State is LLMStateUnloaded in the last report.
	State LLMState
	// Running counts the requests that still run.
	Running int
}

// GetCapabilities tells what the LLM can do with one of the models that its configuration lists, or with its configured
// one where the name is empty.
func (llm *RemoteLLM) GetCapabilities(ctx context.Context, model string) (*Capabilities, error) {
	request := &pb.GetCapabilitiesRequest{Llm: llm.name, Model: present(model)}
	answer, err := unary(ctx, llm, llm.models.GetCapabilities, request, llm.timeout)
	if err != nil {
		return nil, err
	}
	found := answer.GetCapabilities()
	if found == nil {
		found = &pb.Capabilities{}
	}
	return &Capabilities{
		Streaming:             found.Streaming,
		SystemPrompt:          found.SystemPrompt,
		Chat:                  found.Chat,
		Tools:                 found.Tools,
		ImageInput:            found.ImageInput,
		JSONObject:            found.JsonObject,
		JSONSchema:            found.JsonSchema,
		Regex:                 found.Regex,
		Grammar:               found.Grammar,
		Logprobs:              found.Logprobs,
		Seed:                  found.Seed,
		TokenCounting:         found.TokenCounting,
		Parameters:            found.Parameters,
		ProviderOptions:       found.ProviderOptions,
		ContextWindow:         found.ContextWindow,
		MaxOutputTokens:       found.MaxOutputTokens,
		Quantization:          found.Quantization,
		Device:                found.Device,
		MaxConcurrentRequests: found.MaxConcurrentRequests,
	}, nil
}

// ListLLMs tells all LLMs of the server, and how they are.
func (llm *RemoteLLM) ListLLMs(ctx context.Context) ([]LLMInfo, error) {
	answer, err := unary(ctx, llm, llm.models.ListLlms, &pb.ListLlmsRequest{}, llm.timeout)
	if err != nil {
		return nil, err
	}
	var infos []LLMInfo
	for _, found := range answer.GetLlms() {
		infos = append(infos, LLMInfo{
			Name:        found.GetName(),
			Provider:    found.GetProvider(),
			Model:       found.GetModel(),
			IsDefault:   found.GetIsDefault(),
			State:       LLMState(found.GetState()),
			StateReason: found.GetStateReason(),
			Device:      found.GetDevice(),
			MemoryBytes: found.MemoryBytes,
			Running:     int(found.GetRunning()),
			Queued:      int(found.GetQueued()),
		})
	}
	return infos, nil
}

// ListCachedModels tells the models on the server's disk, by name, all pages of them. It needs the admin role.
func (llm *RemoteLLM) ListCachedModels(ctx context.Context) ([]CachedModel, error) {
	request := &pb.ListCachedModelsRequest{Llm: llm.name, PageSize: pageSize}
	var models []CachedModel
	for {
		answer, err := unary(ctx, llm, llm.models.ListCachedModels, request, llm.timeout)
		if err != nil {
			return nil, err
		}
		for _, found := range answer.GetModels() {
			models = append(models, CachedModel{
				Name:             found.GetName(),
				Revisions:        found.GetRevisions(),
				SizeBytes:        found.GetSizeBytes(),
				LastUsedTime:     moment(found.GetLastUsedTime()),
				LastModifiedTime: moment(found.GetLastModifiedTime()),
				UsedBy:           found.GetUsedBy(),
				Partial:          found.GetPartial(),
			})
		}
		if request.PageToken = answer.GetNextPageToken(); request.PageToken == "" {
			return models, nil
		}
	}
}

// ClearModelCache deletes models from the server's disk. It needs the admin role. A target that names neither a model
// nor all of them, or both, is an ErrInvalidRequest; a model that an LLM uses is an ErrModelInUse.
func (llm *RemoteLLM) ClearModelCache(ctx context.Context, target CacheTarget) (*ClearedModels, error) {
	request := &pb.ClearCacheRequest{Llm: llm.name, DryRun: target.DryRun}
	switch {
	case target.All && target.Model == "":
		request.Target = &pb.ClearCacheRequest_All{All: &pb.AllModels{}}
	case !target.All && target.Model != "":
		request.Target = &pb.ClearCacheRequest_Model{Model: target.Model}
	default:
		err := newError(ReasonInvalidRequest, "target: give a Model, or All, not both")
		err.Field, err.Limit = "target", "model or all"
		return nil, err
	}
	answer, err := unary(ctx, llm, llm.models.ClearCache, request, llm.timeout)
	if err != nil {
		return nil, err
	}
	return &ClearedModels{answer.GetRemoved(), answer.GetFreedBytes()}, nil
}

// PullModel downloads to the server's disk one of the models that the LLM's configuration lists, or its configured one
// where the name is empty, and reports progress. It needs the admin role. Leaving the loop detaches this caller; the
// last one leaving stops the download.
func (llm *RemoteLLM) PullModel(ctx context.Context, model string) iter.Seq2[PullProgress, error] {
	request := &pb.PullModelRequest{Llm: llm.name, Model: present(model)}
	return progress(ctx, llm, llm.models.PullModel, request, func(report *pb.PullModelResponse) PullProgress {
		return PullProgress{
			File:           report.GetFile(),
			FileBytesDone:  report.GetFileBytesDone(),
			FileBytesTotal: report.FileBytesTotal,
			BytesDone:      report.GetBytesDone(),
			BytesTotal:     report.BytesTotal,
			Done:           report.GetDone(),
		}
	})
}

// LoadModel loads the LLM's model into the server's memory and reports progress. It needs the admin role. Leaving the
// loop does not stop the load.
func (llm *RemoteLLM) LoadModel(ctx context.Context) iter.Seq2[LoadProgress, error] {
	request := &pb.LoadModelRequest{Llm: llm.name}
	return progress(ctx, llm, llm.models.LoadModel, request, func(report *pb.LoadModelResponse) LoadProgress {
		return LoadProgress{LLMState(report.GetState()), report.GetPhase(), report.Fraction}
	})
}

// UnloadModel unloads the LLM's model and reports progress. It needs the admin role. Requests that run make it fail
// with ErrModelInUse, or are cancelled with force.
func (llm *RemoteLLM) UnloadModel(ctx context.Context, force bool) iter.Seq2[UnloadProgress, error] {
	request := &pb.UnloadModelRequest{Llm: llm.name, Force: force}
	return progress(ctx, llm, llm.models.UnloadModel, request, func(report *pb.UnloadModelResponse) UnloadProgress {
		return UnloadProgress{LLMState(report.GetState()), int(report.GetRunning())}
	})
}

// progress calls and iterates over decoded reports, without a timeout. A failure is the last pair.
func progress[Request proto.Message, Message, Report any](
	ctx context.Context,
	llm *RemoteLLM,
	method func(context.Context, Request, ...grpc.CallOption) (grpc.ServerStreamingClient[Message], error),
	request Request,
	decode func(*Message) Report,
) iter.Seq2[Report, error] {
	return func(yield func(Report, error) bool) {
		for message, err := range stream(ctx, llm, method, request, 0) {
			if err != nil {
				var none Report
				yield(none, err)
				return
			}
			if !yield(decode(message), nil) {
				return
			}
		}
	}
}

func moment(timestamp *timestamppb.Timestamp) time.Time {
	if timestamp == nil {
		return time.Time{}
	}
	return timestamp.AsTime()
}

// present makes an empty name an absent one.
func present(name string) *string {
	if name == "" {
		return nil
	}
	return &name
}
