package abstractllm

import (
	"strconv"
	"strings"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
)

// The values of these types are the contract's numbers, so one that only a newer server knows passes through. String
// gives the contract's name in lower case and without its prefix, or the number of an unknown value.

// Role tells who speaks a chat message.
type Role int32

const (
	// RoleSystem gives instructions to the model.
	RoleSystem = Role(pb.Role_ROLE_SYSTEM)
	// RoleUser is the person or program that asks.
	RoleUser = Role(pb.Role_ROLE_USER)
	// RoleAssistant is the model, in its earlier answers.
	RoleAssistant = Role(pb.Role_ROLE_ASSISTANT)
	// RoleTool brings what the tools returned.
	RoleTool = Role(pb.Role_ROLE_TOOL)
)

// String gives the name, such as "user".
func (value Role) String() string { return enumName(pb.Role_name, "ROLE_", int32(value)) }

// FinishReason tells why an answer ended.
type FinishReason int32

const (
	// FinishReasonStop: the model ended its answer by itself.
	FinishReasonStop = FinishReason(pb.FinishReason_FINISH_REASON_STOP)
	// FinishReasonMaxTokens: the limit on tokens, or the end of the context window, was reached.
	FinishReasonMaxTokens = FinishReason(pb.FinishReason_FINISH_REASON_MAX_TOKENS)
	// FinishReasonStopSequence: one of the stop texts was found; the answer ends before it.
	FinishReasonStopSequence = FinishReason(pb.FinishReason_FINISH_REASON_STOP_SEQUENCE)
	// FinishReasonToolCalls: the model asks for tools to be called.
	FinishReasonToolCalls = FinishReason(pb.FinishReason_FINISH_REASON_TOOL_CALLS)
	// FinishReasonContentFilter: the provider's filter cut the answer.
	FinishReasonContentFilter = FinishReason(pb.FinishReason_FINISH_REASON_CONTENT_FILTER)
	// FinishReasonRefusal: the model declined to answer.
	FinishReasonRefusal = FinishReason(pb.FinishReason_FINISH_REASON_REFUSAL)
)

// String gives the name, such as "max_tokens".
func (value FinishReason) String() string {
	return enumName(pb.FinishReason_name, "FINISH_REASON_", int32(value))
}

// ReasoningEffort tells how long a reasoning model may think before it answers.
type ReasoningEffort int32

const (
	// ReasoningEffortNone: no reasoning.
	ReasoningEffortNone = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_NONE)
	// ReasoningEffortMinimal: the least reasoning that the model offers.
	ReasoningEffortMinimal = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_MINIMAL)
	// ReasoningEffortLow: little reasoning.
	ReasoningEffortLow = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_LOW)
	// ReasoningEffortMedium: a middling amount of reasoning.
	ReasoningEffortMedium = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_MEDIUM)
	// ReasoningEffortHigh: much reasoning.
	ReasoningEffortHigh = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_HIGH)
	// ReasoningEffortXHigh: the most reasoning that the model offers.
	ReasoningEffortXHigh = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_XHIGH)
)

// String gives the name, such as "low".
func (value ReasoningEffort) String() string {
	return enumName(pb.ReasoningEffort_name, "REASONING_EFFORT_", int32(value))
}

// ToolChoiceMode tells whether the model may, must not, or must call a tool.
type ToolChoiceMode int32

const (
	// ToolChoiceAuto: the model decides.
	ToolChoiceAuto = ToolChoiceMode(pb.ToolChoiceMode_TOOL_CHOICE_MODE_AUTO)
	// ToolChoiceNone: no tool may be called.
	ToolChoiceNone = ToolChoiceMode(pb.ToolChoiceMode_TOOL_CHOICE_MODE_NONE)
	// ToolChoiceRequired: some tool must be called.
	ToolChoiceRequired = ToolChoiceMode(pb.ToolChoiceMode_TOOL_CHOICE_MODE_REQUIRED)
)

// String gives the name, such as "required".
func (value ToolChoiceMode) String() string {
	return enumName(pb.ToolChoiceMode_name, "TOOL_CHOICE_MODE_", int32(value))
}

// ParametersPolicy tells what happens to a parameter that the LLM cannot honour.
type ParametersPolicy int32

const (
	// ParametersPolicyReject refuses the request and names the parameter (the default).
	ParametersPolicyReject = ParametersPolicy(pb.ParametersPolicy_PARAMETERS_POLICY_REJECT)
	// ParametersPolicyDropUnsupported leaves the parameter out and lists it in DroppedParameters.
	ParametersPolicyDropUnsupported = ParametersPolicy(pb.ParametersPolicy_PARAMETERS_POLICY_DROP_UNSUPPORTED)
)

// String gives the name, such as "drop_unsupported".
func (value ParametersPolicy) String() string {
	return enumName(pb.ParametersPolicy_name, "PARAMETERS_POLICY_", int32(value))
}

// LLMState tells where an LLM is in its life.
type LLMState int32

const (
	// LLMStateUnloaded: not in memory; the next request loads it.
	LLMStateUnloaded = LLMState(pb.LlmState_LLM_STATE_UNLOADED)
	// LLMStateLoading: on its way into memory; requests wait.
	LLMStateLoading = LLMState(pb.LlmState_LLM_STATE_LOADING)
	// LLMStateReady: it can answer.
	LLMStateReady = LLMState(pb.LlmState_LLM_STATE_READY)
	// LLMStateFailed: it cannot answer.
	LLMStateFailed = LLMState(pb.LlmState_LLM_STATE_FAILED)
)

// String gives the name, such as "ready".
func (value LLMState) String() string { return enumName(pb.LlmState_name, "LLM_STATE_", int32(value)) }

// Quantization is the precision that a local model's weights are loaded in.
type Quantization int32

const (
	// QuantizationNone: the weights as they are.
	QuantizationNone = Quantization(pb.Quantization_QUANTIZATION_NONE)
	// QuantizationInt8: 8-bit integers.
	QuantizationInt8 = Quantization(pb.Quantization_QUANTIZATION_INT8)
	// QuantizationInt4: 4-bit integers.
	QuantizationInt4 = Quantization(pb.Quantization_QUANTIZATION_INT4)
)

// String gives the name, such as "int8".
func (value Quantization) String() string {
	return enumName(pb.Quantization_name, "QUANTIZATION_", int32(value))
}

func enumName(names map[int32]string, prefix string, number int32) string {
	name, known := names[number]
	if !known {
		return strconv.Itoa(int(number))
	}
	return strings.ToLower(strings.TrimPrefix(name, prefix))
}
