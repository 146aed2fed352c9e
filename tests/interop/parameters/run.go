// Package parameters shows: every parameter arrives with its value, zero too, and an absent one stays absent; what
// cannot be honoured can be dropped by name.
package parameters

import (
	"context"
	"time"

	"github.com/abstractllm/abstractllm-go"
	"interop/runners/go/interop"
)

// Run runs the behaviour and returns its report.
func Run(task *interop.Task) any {
	input := interop.Read[struct {
		All struct {
			Temperature       float64
			TopP              float64 `json:"top_p"`
			TopK              int32   `json:"top_k"`
			MinP              float64 `json:"min_p"`
			MaxTokens         int32   `json:"max_tokens"`
			Seed              int64
			PresencePenalty   float64 `json:"presence_penalty"`
			FrequencyPenalty  float64 `json:"frequency_penalty"`
			RepetitionPenalty float64 `json:"repetition_penalty"`
			Stop              []string
			LogitBias         map[int32]float64 `json:"logit_bias"`
			TopLogprobs       int32             `json:"top_logprobs"`
		}
		RequestID string `json:"request_id"`
		Labels    map[string]string
	}](task)
	ctx := context.Background()
	llm := task.Connect("mirror")
	configured := task.Connect("mirror", abstractllm.WithDefaults(abstractllm.WithTemperature(0.5), abstractllm.WithTopK(3)))
	local := task.Connect("local", abstractllm.WithDefaults(abstractllm.WithTemperature(0), abstractllm.WithMaxTokens(2)))
	defer llm.Close()
	defer configured.Close()
	defer local.Close()
	arrived := func(llm *abstractllm.RemoteLLM, options ...abstractllm.GenerateOption) interop.Mirrored {
		return interop.ReadMirrored(llm.Generate(ctx, abstractllm.String("hi"), options...))
	}

	all := input.All
	every := arrived(llm,
		abstractllm.WithTemperature(all.Temperature),
		abstractllm.WithTopP(all.TopP),
		abstractllm.WithTopK(all.TopK),
		abstractllm.WithMinP(all.MinP),
		abstractllm.WithMaxTokens(all.MaxTokens),
		abstractllm.WithSeed(all.Seed),
		abstractllm.WithPresencePenalty(all.PresencePenalty),
		abstractllm.WithFrequencyPenalty(all.FrequencyPenalty),
		abstractllm.WithRepetitionPenalty(all.RepetitionPenalty),
		abstractllm.WithStop(all.Stop...),
		abstractllm.WithLogitBias(all.LogitBias),
		abstractllm.WithTopLogprobs(all.TopLogprobs),
		abstractllm.WithReasoningEffort(abstractllm.ReasoningEffortHigh),
		abstractllm.WithRequestID(input.RequestID),
		abstractllm.WithLabels(input.Labels),
		abstractllm.WithTimeout(time.Minute),
	)
	dropping := interop.Must(local.Complete(ctx, abstractllm.String("hi"),
		abstractllm.WithReasoningEffort(abstractllm.ReasoningEffortHigh),
		abstractllm.WithParametersPolicy(abstractllm.ParametersPolicyDropUnsupported)))
	probable := interop.Must(local.Complete(ctx, abstractllm.String("hi"), abstractllm.WithTopLogprobs(2)))
	var tokens []string
	var alternatives []int
	for _, token := range probable.Logprobs {
		tokens, alternatives = append(tokens, token.Token), append(alternatives, len(token.Top))
	}
	return map[string]any{
		"none":     short(arrived(llm)),
		"all":      short(every),
		"client":   arrived(configured).Parameters,
		"call":     arrived(configured, abstractllm.WithTemperature(0)).Parameters,
		"logprobs": map[string]any{"tokens": tokens, "alternatives": alternatives},
		"dropped":  dropping.DroppedParameters,
	}
}

func short(mirrored interop.Mirrored) any {
	return map[string]any{
		"parameters":  mirrored.Parameters,
		"request_id":  mirrored.RequestID,
		"labels":      mirrored.Labels,
		"has_timeout": mirrored.HasTimeout,
	}
}
