package abstractllm

import (
	"context"
	"iter"
	"time"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// pageSize is the largest page of cached models that the server sends.
const pageSize = 1000

// Capabilities are what an LLM can do; a request can be checked against it before it is sent.
type Capabilities struct {
	Streaming, SystemPrompt, Chat, Tools, ImageInput bool
	JSONObject, JSONSchema, Regex, Grammar           bool
	Logprobs, Seed, TokenCounting                    bool
	// Parameters are the names of the generation parameters that the LLM supports.
	Parameters []string
	// ProviderOptions are the keys that [WithProviderOptions] may set.
	ProviderOptions []string
	// ContextWindow is the most tokens of prompt and answer together; nil where it is not known.
	ContextWindow *int64
	// MaxOutputTokens is the most tokens of an answer; nil where it is not known, or where only ContextWindow bounds it.
	MaxOutputTokens *int64
	// Quantization is the precision of the weights, such as "int8"; empty where they are not quantized, and for a hosted
	// LLM.
	Quantization string
	// Device is the device that the LLM runs on, such as "cuda:0"; empty for a hosted LLM.
	Device string
	// MaxConcurrentRequests is the most requests that are answered at the same time; nil where it is not known.
	MaxConcurrentRequests *int32
}

// LLMInfo is a named LLM of a server, and its state.
type LLMInfo struct {
	Name, Provider, Model string
	IsDefault             bool
	State                 LLMState
	// StateReason is the reason of the state: the error where the LLM failed, else possibly empty.
	StateReason string
	// Device is the device that the LLM runs on; empty for a hosted LLM.
	Device string
	// MemoryBytes is the memory that the LLM holds on its device; nil where it is not known, and for a hosted LLM.
	MemoryBytes *int64
	// Running counts the requests that are being answered, and Queued those that wait.
	Running, Queued int
}

// CachedModel is a model on the server's disk.
type CachedModel struct {
	Name      string
	Revisions []string
	SizeBytes int64
	// LastUsedTime and LastModifiedTime are zero where they are not known.
	LastUsedTime, LastModifiedTime time.Time
	// UsedBy are the names of the LLMs that have the model loaded, or are loading it.
	UsedBy []string
	// Partial reports whether the model's download is not complete.
	Partial bool
}

// CacheTarget is what to delete from a cache: one model, or all of them.
type CacheTarget struct {
	Model string
	All   bool
	// DryRun lists what would be deleted, and deletes nothing.
	DryRun bool
}

// ClearedModels are the models that were deleted from a cache; after a dry run, those that would be.
type ClearedModels struct {
	Removed    []string
	FreedBytes int64
}

// PullProgress is one report on the download of a model.
type PullProgress struct {
	// File is the file that the report is about; empty where it is about the whole model alone.
	File          string
	FileBytesDone int64
	// FileBytesTotal is nil where it is not known, as is BytesTotal.
	FileBytesTotal *int64
	BytesDone      int64
	BytesTotal     *int64
	// Done is true in the last report: the model is complete.
	Done bool
}

// LoadProgress is one report on the loading of a model.
type LoadProgress struct {
	// State is LLMStateReady in the last report.
	State LLMState
	Phase string
	// Fraction is the part that is done, from 0 to 1; nil where it is not known.
	Fraction *float64
}

// UnloadProgress is one report on the unloading of a model.
type UnloadProgress struct {
	// State is LLMStateUnloaded in the last report.
	State LLMState
	// Running counts the requests that are still being answered.
	Running int
}

// GetCapabilities returns what the LLM can do with one of the models that its configuration lists; with its configured
// model where the name is empty.
func (r *RemoteLLM) GetCapabilities(ctx context.Context, model string) (*Capabilities, error) {
	request := &pb.GetCapabilitiesRequest{Llm: r.name, Model: optionalName(model)}
	response, err := callUnary(ctx, r, r.models.GetCapabilities, request, r.timeout)
	if err != nil {
		return nil, err
	}
	return decodeCapabilities(response.GetCapabilities()), nil
}

func decodeCapabilities(capabilities *pb.Capabilities) *Capabilities {
	if capabilities == nil {
		return &Capabilities{}
	}
	return &Capabilities{
		Streaming:             capabilities.Streaming,
		SystemPrompt:          capabilities.SystemPrompt,
		Chat:                  capabilities.Chat,
		Tools:                 capabilities.Tools,
		ImageInput:            capabilities.ImageInput,
		JSONObject:            capabilities.JsonObject,
		JSONSchema:            capabilities.JsonSchema,
		Regex:                 capabilities.Regex,
		Grammar:               capabilities.Grammar,
		Logprobs:              capabilities.Logprobs,
		Seed:                  capabilities.Seed,
		TokenCounting:         capabilities.TokenCounting,
		Parameters:            capabilities.Parameters,
		ProviderOptions:       capabilities.ProviderOptions,
		ContextWindow:         capabilities.ContextWindow,
		MaxOutputTokens:       capabilities.MaxOutputTokens,
		Quantization:          capabilities.Quantization,
		Device:                capabilities.Device,
		MaxConcurrentRequests: capabilities.MaxConcurrentRequests,
	}
}

// ListLLMs returns all LLMs of the server, and their states.
func (r *RemoteLLM) ListLLMs(ctx context.Context) ([]LLMInfo, error) {
	response, err := callUnary(ctx, r, r.models.ListLlms, &pb.ListLlmsRequest{}, r.timeout)
	if err != nil {
		return nil, err
	}
	var infos []LLMInfo
	for _, info := range response.GetLlms() {
		infos = append(infos, LLMInfo{
			Name:        info.GetName(),
			Provider:    info.GetProvider(),
			Model:       info.GetModel(),
			IsDefault:   info.GetIsDefault(),
			State:       LLMState(info.GetState()),
			StateReason: info.GetStateReason(),
			Device:      info.GetDevice(),
			MemoryBytes: info.MemoryBytes,
			Running:     int(info.GetRunning()),
			Queued:      int(info.GetQueued()),
		})
	}
	return infos, nil
}

// ListCachedModels returns the models on the server's disk, ordered by name. It reads all pages. It needs the admin role.
func (r *RemoteLLM) ListCachedModels(ctx context.Context) ([]CachedModel, error) {
	request := &pb.ListCachedModelsRequest{Llm: r.name, PageSize: pageSize}
	var models []CachedModel
	for {
		response, err := callUnary(ctx, r, r.models.ListCachedModels, request, r.timeout)
		if err != nil {
			return nil, err
		}
		for _, model := range response.GetModels() {
			models = append(models, CachedModel{
				Name:             model.GetName(),
				Revisions:        model.GetRevisions(),
				SizeBytes:        model.GetSizeBytes(),
				LastUsedTime:     decodeTime(model.GetLastUsedTime()),
				LastModifiedTime: decodeTime(model.GetLastModifiedTime()),
				UsedBy:           model.GetUsedBy(),
				Partial:          model.GetPartial(),
			})
		}
		if request.PageToken = response.GetNextPageToken(); request.PageToken == "" {
			return models, nil
		}
	}
}

// ClearModelCache deletes models from the server's disk. It needs the admin role. The error is an ErrInvalidRequest where
// the target has neither a model nor All, or both, and an ErrModelInUse where an LLM uses a model of it.
func (r *RemoteLLM) ClearModelCache(ctx context.Context, target CacheTarget) (*ClearedModels, error) {
	request := &pb.ClearCacheRequest{Llm: r.name, DryRun: target.DryRun}
	switch {
	case target.All && target.Model == "":
		request.Target = &pb.ClearCacheRequest_All{All: &pb.AllModels{}}
	case !target.All && target.Model != "":
		request.Target = &pb.ClearCacheRequest_Model{Model: target.Model}
	default:
		err := newError(ReasonInvalidRequest, "target: set either Model or All")
		err.Field, err.Limit = "target", "model or all"
		return nil, err
	}
	response, err := callUnary(ctx, r, r.models.ClearCache, request, r.timeout)
	if err != nil {
		return nil, err
	}
	return &ClearedModels{response.GetRemoved(), response.GetFreedBytes()}, nil
}

// PullModel downloads one of the models that the LLM's configuration lists to the server's disk, and reports progress;
// the configured model where the name is empty. It needs the admin role. Leaving the loop stops the download, unless
// another caller still follows it.
func (r *RemoteLLM) PullModel(ctx context.Context, model string) iter.Seq2[PullProgress, error] {
	request := &pb.PullModelRequest{Llm: r.name, Model: optionalName(model)}
	return callProgress(ctx, r, r.models.PullModel, request, func(report *pb.PullModelResponse) PullProgress {
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
func (r *RemoteLLM) LoadModel(ctx context.Context) iter.Seq2[LoadProgress, error] {
	request := &pb.LoadModelRequest{Llm: r.name}
	return callProgress(ctx, r, r.models.LoadModel, request, func(report *pb.LoadModelResponse) LoadProgress {
		return LoadProgress{LLMState(report.GetState()), report.GetPhase(), report.Fraction}
	})
}

// UnloadModel unloads the LLM's model and reports progress. It needs the admin role. Requests that run make it fail
// with ErrModelInUse; with force, they are cancelled.
func (r *RemoteLLM) UnloadModel(ctx context.Context, force bool) iter.Seq2[UnloadProgress, error] {
	request := &pb.UnloadModelRequest{Llm: r.name, Force: force}
	return callProgress(ctx, r, r.models.UnloadModel, request, func(report *pb.UnloadModelResponse) UnloadProgress {
		return UnloadProgress{LLMState(report.GetState()), int(report.GetRunning())}
	})
}

// callProgress sends a request and iterates over the decoded reports, without a timeout. A failure is the last pair.
func callProgress[Request proto.Message, Response, Report any](
	ctx context.Context,
	llm *RemoteLLM,
	method func(context.Context, Request, ...grpc.CallOption) (grpc.ServerStreamingClient[Response], error),
	request Request,
	decode func(*Response) Report,
) iter.Seq2[Report, error] {
	return func(yield func(Report, error) bool) {
		for response, err := range callStream(ctx, llm, method, request, 0) {
			if err != nil {
				var zero Report
				yield(zero, err)
				return
			}
			if !yield(decode(response), nil) {
				return
			}
		}
	}
}

// optionalName returns nil for an empty name: the field stays absent.
func optionalName(name string) *string {
	if name == "" {
		return nil
	}
	return &name
}
