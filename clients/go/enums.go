package abstractllm

import (
	"strconv"
	"strings"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
)

// The values of these types are the numbers of the contract, so a value that only a newer server knows passes through.
// String returns the contract's name in lower case and without its prefix, or the number of an unknown value.

// Role is the speaker of a chat message.
type Role int32

const (
	// RoleSystem marks instructions to the model.
	RoleSystem = Role(pb.Role_ROLE_SYSTEM)
	// RoleUser marks what the person or program asks.
	RoleUser = Role(pb.Role_ROLE_USER)
	// RoleAssistant marks the model's earlier answers.
	RoleAssistant = Role(pb.Role_ROLE_ASSISTANT)
	// RoleTool marks the results of tools.
	RoleTool = Role(pb.Role_ROLE_TOOL)
)

// String returns the name, such as "user".
func (r Role) String() string { return enumName(pb.Role_name, "ROLE_", int32(r)) }

// FinishReason is the reason why an answer ended.
type FinishReason int32

const (
	// FinishReasonStop means that the model ended its answer by itself.
	FinishReasonStop = FinishReason(pb.FinishReason_FINISH_REASON_STOP)
	// FinishReasonMaxTokens means that the limit on tokens, or the end of the context window, was reached.
	FinishReasonMaxTokens = FinishReason(pb.FinishReason_FINISH_REASON_MAX_TOKENS)
	// FinishReasonStopSequence means that the model wrote one of the stop texts; the answer ends before it.
	FinishReasonStopSequence = FinishReason(pb.FinishReason_FINISH_REASON_STOP_SEQUENCE)
	// FinishReasonToolCalls means that the model asks for tools to be called.
	FinishReasonToolCalls = FinishReason(pb.FinishReason_FINISH_REASON_TOOL_CALLS)
	// FinishReasonContentFilter means that the provider's filter cut the answer.
	FinishReasonContentFilter = FinishReason(pb.FinishReason_FINISH_REASON_CONTENT_FILTER)
	// FinishReasonRefusal means that the model declined to answer.
	FinishReasonRefusal = FinishReason(pb.FinishReason_FINISH_REASON_REFUSAL)
)

// String returns the name, such as "max_tokens".
func (f FinishReason) String() string {
	return enumName(pb.FinishReason_name, "FINISH_REASON_", int32(f))
}

// ReasoningEffort is the amount of thinking of a reasoning model before it answers.
type ReasoningEffort int32

const (
	// ReasoningEffortNone asks for no reasoning.
	ReasoningEffortNone = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_NONE)
	// ReasoningEffortMinimal asks for the least reasoning that the model offers.
	ReasoningEffortMinimal = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_MINIMAL)
	// ReasoningEffortLow asks for little reasoning.
	ReasoningEffortLow = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_LOW)
	// ReasoningEffortMedium asks for a middling amount of reasoning.
	ReasoningEffortMedium = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_MEDIUM)
	// ReasoningEffortHigh asks for much reasoning.
	ReasoningEffortHigh = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_HIGH)
	// ReasoningEffortXHigh asks for the most reasoning that the model offers.
	ReasoningEffortXHigh = ReasoningEffort(pb.ReasoningEffort_REASONING_EFFORT_XHIGH)
)

// String returns the name, such as "low".
func (e ReasoningEffort) String() string {
	return enumName(pb.ReasoningEffort_name, "REASONING_EFFORT_", int32(e))
}

// ToolChoiceMode is a rule for calling tools.
type ToolChoiceMode int32

const (
	// ToolChoiceAuto lets the model decide.
	ToolChoiceAuto = ToolChoiceMode(pb.ToolChoiceMode_TOOL_CHOICE_MODE_AUTO)
	// ToolChoiceNone forbids calling a tool.
	ToolChoiceNone = ToolChoiceMode(pb.ToolChoiceMode_TOOL_CHOICE_MODE_NONE)
	// ToolChoiceRequired makes the model call some tool.
	ToolChoiceRequired = ToolChoiceMode(pb.ToolChoiceMode_TOOL_CHOICE_MODE_REQUIRED)
)

// String returns the name, such as "required".
func (m ToolChoiceMode) String() string {
	return enumName(pb.ToolChoiceMode_name, "TOOL_CHOICE_MODE_", int32(m))
}

// ParametersPolicy is what happens to parameters that the LLM does not support.
type ParametersPolicy int32

const (
	// ParametersPolicyReject refuses the request and names the parameter; the default.
	ParametersPolicyReject = ParametersPolicy(pb.ParametersPolicy_PARAMETERS_POLICY_REJECT)
	// ParametersPolicyDropUnsupported leaves the parameter out and lists it in DroppedParameters.
	ParametersPolicyDropUnsupported = ParametersPolicy(pb.ParametersPolicy_PARAMETERS_POLICY_DROP_UNSUPPORTED)
)

// String returns the name, such as "drop_unsupported".
func (p ParametersPolicy) String() string {
	return enumName(pb.ParametersPolicy_name, "PARAMETERS_POLICY_", int32(p))
}

// LLMState is the state of an LLM.
type LLMState int32

const (
	// LLMStateUnloaded means that the model is not in memory; the next request loads it.
	LLMStateUnloaded = LLMState(pb.LlmState_LLM_STATE_UNLOADED)
	// LLMStateLoading means that the model is being loaded; requests wait.
	LLMStateLoading = LLMState(pb.LlmState_LLM_STATE_LOADING)
	// LLMStateReady means that the LLM can answer.
	LLMStateReady = LLMState(pb.LlmState_LLM_STATE_READY)
	// LLMStateFailed means that the LLM cannot answer.
	LLMStateFailed = LLMState(pb.LlmState_LLM_STATE_FAILED)
)

// String returns the name, such as "ready".
func (s LLMState) String() string { return enumName(pb.LlmState_name, "LLM_STATE_", int32(s)) }

// Quantization is the precision that a local model's weights are loaded in.
type Quantization int32

const (
	// QuantizationNone loads the weights as they are.
	QuantizationNone = Quantization(pb.Quantization_QUANTIZATION_NONE)
	// QuantizationInt8 loads the weights as 8-bit integers.
	QuantizationInt8 = Quantization(pb.Quantization_QUANTIZATION_INT8)
	// QuantizationInt4 loads the weights as 4-bit integers.
	QuantizationInt4 = Quantization(pb.Quantization_QUANTIZATION_INT4)
)

// String returns the name, such as "int8".
func (q Quantization) String() string {
	return enumName(pb.Quantization_name, "QUANTIZATION_", int32(q))
}

// enumName returns the name of a value in lower case and without its prefix, or the number of an unknown value.
func enumName(names map[int32]string, prefix string, number int32) string {
	name, known := names[number]
	if !known {
		return strconv.Itoa(int(number))
	}
	return strings.ToLower(strings.TrimPrefix(name, prefix))
}
