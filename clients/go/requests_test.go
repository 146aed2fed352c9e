package abstractllm_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/abstractllm/abstractllm-go"
	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// expectRequest generates, and compares the request that the server received with one in JSON.
func expectRequest(t *testing.T, want string, prompt abstractllm.Prompt, options ...abstractllm.GenerateOption) {
	t.Helper()
	server := serve(t)
	server.answerWith("There")
	_, err := client(t, server.address, abstractllm.WithLLM("gpt")).Generate(t.Context(), prompt, options...)
	check(t, err)
	var wanted pb.GenerateRequest
	check(t, protojson.Unmarshal([]byte(want), &wanted))
	wanted.Llm = "gpt"
	if !proto.Equal(server.last(), &wanted) {
		t.Errorf("got  %v\nwant %v", server.last(), &wanted)
	}
}

func TestWhatIsNotSetStaysAbsent(t *testing.T) {
	expectRequest(t, `{"prompt": "Hi"}`, hi)
}

func TestZeroIsSentAsZero(t *testing.T) {
	expectRequest(t, `{"prompt": "Hi", "system_prompt": "", "parameters": {
			"model": "", "temperature": 0, "top_p": 0, "top_k": 0, "min_p": 0, "max_tokens": 0, "seed": 0,
			"presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 0, "top_logprobs": 0,
			"reasoning_effort": 0}}`,
		hi,
		abstractllm.WithSystemPrompt(""),
		abstractllm.WithModel(""),
		abstractllm.WithTemperature(0),
		abstractllm.WithTopP(0),
		abstractllm.WithTopK(0),
		abstractllm.WithMinP(0),
		abstractllm.WithMaxTokens(0),
		abstractllm.WithSeed(0),
		abstractllm.WithPresencePenalty(0),
		abstractllm.WithFrequencyPenalty(0),
		abstractllm.WithRepetitionPenalty(0),
		abstractllm.WithTopLogprobs(0),
		abstractllm.WithReasoningEffort(0),
	)
}

func TestEveryOptionHasItsField(t *testing.T) {
	expectRequest(t, `{
			"prompt": "Hi", "system_prompt": "Be brief.",
			"parameters": {
				"model": "m", "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "max_tokens": 64,
				"seed": "9007199254740993", "presence_penalty": -0.5, "frequency_penalty": 1.5,
				"repetition_penalty": 1.25, "stop": ["a", "b"], "logit_bias": {"5": -100, "70000": 2.5},
				"top_logprobs": 3, "reasoning_effort": "REASONING_EFFORT_XHIGH"},
			"response_format": {"json_schema": {"name": "n", "schema_json": "{}", "strict": false}},
			"tools": [{"name": "f", "description": "d", "parameters_json_schema": "{}"}, {"name": "g"}],
			"tool_choice": {"mode": "TOOL_CHOICE_MODE_REQUIRED"},
			"provider_options": {"a": null, "b": true, "c": [1, 2.5, "x", {"d": {}}], "e": 9007199254740992},
			"request_id": "r1", "labels": {"team": "blue"},
			"parameters_policy": "PARAMETERS_POLICY_DROP_UNSUPPORTED"}`,
		hi,
		abstractllm.WithSystemPrompt("Be brief."),
		abstractllm.WithModel("m"),
		abstractllm.WithTemperature(0.5),
		abstractllm.WithTopP(0.25),
		abstractllm.WithTopK(7),
		abstractllm.WithMinP(0.125),
		abstractllm.WithMaxTokens(64),
		abstractllm.WithSeed(9007199254740993),
		abstractllm.WithPresencePenalty(-0.5),
		abstractllm.WithFrequencyPenalty(1.5),
		abstractllm.WithRepetitionPenalty(1.25),
		abstractllm.WithStop("a", "b"),
		abstractllm.WithLogitBias(map[int32]float64{5: -100, 70000: 2.5}),
		abstractllm.WithTopLogprobs(3),
		abstractllm.WithReasoningEffort(abstractllm.ReasoningEffortXHigh),
		abstractllm.WithResponseFormat(abstractllm.JSONSchemaFormat{Name: "n", SchemaJSON: "{}", Strict: new(false)}),
		abstractllm.WithTools(
			abstractllm.Tool{Name: "f", Description: "d", ParametersJSONSchema: "{}"}, abstractllm.Tool{Name: "g"},
		),
		abstractllm.WithToolChoice(abstractllm.ToolChoice{Mode: abstractllm.ToolChoiceRequired}),
		abstractllm.WithProviderOptions(map[string]any{
			"a": nil, "b": true, "c": []any{1, 2.5, "x", map[string]map[string]int{"d": {}}}, "e": uint64(1 << 53),
		}),
		abstractllm.WithRequestID("r1"),
		abstractllm.WithLabels(map[string]string{"team": "blue"}),
		abstractllm.WithParametersPolicy(abstractllm.ParametersPolicyDropUnsupported),
	)
}

func TestEveryFormatAndChoiceHasItsField(t *testing.T) {
	for want, option := range map[string]abstractllm.GenerateOption{
		`"response_format": {"json_object": {}}`: abstractllm.WithResponseFormat(abstractllm.JSONObjectFormat{}),
		`"response_format": {"json_schema": {"schema_json": "{}"}}`: abstractllm.WithResponseFormat(
			abstractllm.JSONSchemaFormat{SchemaJSON: "{}"}),
		`"response_format": {"regex": "[0-9]"}`: abstractllm.WithResponseFormat(abstractllm.RegexFormat("[0-9]")),
		`"response_format": {"grammar": "g"}`:   abstractllm.WithResponseFormat(abstractllm.GrammarFormat("g")),
		`"tool_choice": {"name": "f"}`:          abstractllm.WithToolChoice(abstractllm.ToolChoice{Name: "f"}),
		`"tool_choice": {}`:                     abstractllm.WithToolChoice(abstractllm.ToolChoice{}),
		`"provider_options": {}`:                abstractllm.WithProviderOptions(nil),
	} {
		expectRequest(t, `{"prompt": "Hi", `+want+`}`, hi, option)
	}
}

func TestAChatHasEveryRoleAndPart(t *testing.T) {
	state := []byte{0, 255}
	expectRequest(t, `{"chat": {"messages": [
			{"role": "ROLE_SYSTEM", "parts": [{"text": "Be brief."}]},
			{"role": "ROLE_USER", "parts": [{"text": "a", "provider_state": "AP8="},
				{"image": {"data": "iVBO", "mime_type": "image/png"}}]},
			{"role": "ROLE_ASSISTANT", "parts": [{"reasoning": {"text": "hm"}, "provider_state": "AP8="},
				{"tool_call": {"id": "1", "name": "f", "arguments_json": "{}"}}]},
			{"role": "ROLE_TOOL", "parts": [{"tool_result": {"tool_call_id": "1", "content": "no", "is_error": true}}]},
			{"role": 9, "parts": []}]}}`,
		abstractllm.Chat{
			abstractllm.Message(abstractllm.RoleSystem, "Be brief."),
			{Role: abstractllm.RoleUser, Parts: []abstractllm.Part{
				abstractllm.Text{Text: "a", ProviderState: state},
				abstractllm.Image{Data: []byte("\x89PN"), MIMEType: "image/png"},
			}},
			{Role: abstractllm.RoleAssistant, Parts: []abstractllm.Part{
				abstractllm.Reasoning{Text: "hm", ProviderState: state},
				abstractllm.ToolCall{ID: "1", Name: "f", ArgumentsJSON: "{}"},
			}},
			{Role: abstractllm.RoleTool, Parts: []abstractllm.Part{
				abstractllm.ToolResult{ToolCallID: "1", Content: "no", IsError: true},
			}},
			{Role: 9},
		})
}

func TestACallsOptionsWinOverTheClients(t *testing.T) {
	server := serve(t)
	server.answerWith("There")
	llm := client(t, server.address, abstractllm.WithDefaults(
		abstractllm.WithTemperature(0.5), abstractllm.WithTopK(3), abstractllm.WithTools(abstractllm.Tool{Name: "f"}),
	))
	for _, call := range []struct {
		options     []abstractllm.GenerateOption
		temperature float64
		tool        string
	}{
		{nil, 0.5, "f"},
		{[]abstractllm.GenerateOption{
			abstractllm.WithTemperature(0), abstractllm.WithTools(abstractllm.Tool{Name: "g"}),
		}, 0, "g"},
		{nil, 0.5, "f"},
	} {
		_, err := llm.Generate(t.Context(), hi, call.options...)
		check(t, err)
		received := server.last().(*pb.GenerateRequest)
		if received.Parameters.GetTemperature() != call.temperature || received.Parameters.GetTopK() != 3 ||
			len(received.Tools) != 1 || received.Tools[0].Name != call.tool {
			t.Errorf("got %v", received)
		}
	}
}

func TestWhatCannotBeSentIsRefusedByName(t *testing.T) {
	server := serve(t)
	server.answerWith("There")
	llm := client(t, server.address)
	broken := "a\xffb"
	loose := abstractllm.Chat{{Role: abstractllm.RoleUser, Parts: []abstractllm.Part{abstractllm.Text{Text: broken}}}}
	options := func(value any) []abstractllm.GenerateOption {
		return []abstractllm.GenerateOption{abstractllm.WithProviderOptions(map[string]any{"a": value})}
	}
	for _, call := range []struct {
		field   string
		prompt  abstractllm.Prompt
		options []abstractllm.GenerateOption
	}{
		{"prompt", nil, nil},
		{"prompt", abstractllm.String(broken), nil},
		{"chat.messages[0].parts[0].text", loose, nil},
		{"chat.messages[0].parts[0]", abstractllm.Chat{{Parts: []abstractllm.Part{nil}}}, nil},
		{"parameters.temperature", hi, []abstractllm.GenerateOption{abstractllm.WithTemperature(math.NaN())}},
		{"parameters.logit_bias.5", hi, []abstractllm.GenerateOption{
			abstractllm.WithLogitBias(map[int32]float64{5: math.Inf(1)})}},
		{"parameters.stop[1]", hi, []abstractllm.GenerateOption{abstractllm.WithStop("a", broken)}},
		{"labels", hi, []abstractllm.GenerateOption{abstractllm.WithLabels(map[string]string{broken: "a"})}},
		{"labels.a", hi, []abstractllm.GenerateOption{abstractllm.WithLabels(map[string]string{"a": broken})}},
		{"timeout", hi, []abstractllm.GenerateOption{abstractllm.WithTimeout(0)}},
		{"response_format", hi, []abstractllm.GenerateOption{abstractllm.WithResponseFormat(nil)}},
		{"tool_choice", hi, []abstractllm.GenerateOption{
			abstractllm.WithToolChoice(abstractllm.ToolChoice{Mode: abstractllm.ToolChoiceAuto, Name: "f"})}},
		{"provider_options.a", hi, options(func() {})},
		{"provider_options.a", hi, options(math.NaN())},
		{"provider_options.a", hi, options(1<<53 + 1)},
		{"provider_options.a", hi, options(uint64(math.MaxUint64))},
		{"provider_options.a", hi, options(broken)},
		{"provider_options.a", hi, options(map[int]int{1: 1})},
		{"provider_options.a.b[1]", hi, options(map[string][]any{"b": {1, struct{}{}}})},
	} {
		_, err := llm.Generate(t.Context(), call.prompt, call.options...)
		failure, ok := errors.AsType[*abstractllm.Error](err)
		if !ok || !hasClass(err, abstractllm.ErrInvalidRequest) || failure.Field != call.field ||
			!strings.HasPrefix(failure.Message, call.field+": must be ") {
			t.Errorf("%s: got %+v", call.field, err)
		}
		for event, err := range llm.Stream(t.Context(), call.prompt, call.options...) {
			if event != nil || !hasClass(err, abstractllm.ErrInvalidRequest) {
				t.Errorf("%s: got %v, %v", call.field, event, err)
			}
		}
	}
	if server.calls() != 0 {
		t.Errorf("%d calls were sent", server.calls())
	}
}

func TestARequestBeyondTheMessageLimitIsRefusedBeforeItIsSent(t *testing.T) {
	server := serve(t)
	server.answerWith("There")
	prompt := abstractllm.String(strings.Repeat("x", abstractllm.MessageLimit))
	_, errs := generateAndStream(t, client(t, server.address), prompt)
	for _, err := range errs {
		failure, ok := errors.AsType[*abstractllm.Error](err)
		if !ok || failure.Reason != abstractllm.ReasonMessageTooLarge || !hasClass(err, abstractllm.ErrInvalidRequest) ||
			failure.Field != "request" || failure.Limit != "16777216" || failure.Requested != "16777221" {
			t.Errorf("got %+v", err)
		}
	}
	if server.calls() != 0 {
		t.Errorf("%d calls were sent", server.calls())
	}
}

func TestDefaultsThatCannotBeSentAreRefusedAtOnce(t *testing.T) {
	for field, option := range map[string]abstractllm.GenerateOption{
		"timeout":            abstractllm.WithTimeout(-time.Second),
		"request_id":         abstractllm.WithRequestID("\xff"),
		"provider_options.a": abstractllm.WithProviderOptions(map[string]any{"a": make(chan int)}),
	} {
		_, err := abstractllm.NewRemoteLLM("127.0.0.1:1", abstractllm.WithDefaults(option))
		if failure, ok := errors.AsType[*abstractllm.Error](err); !ok || failure.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestTokensAreCountedOfWhatWouldBeGenerated(t *testing.T) {
	server := serve(t)
	llm := client(t, server.address, abstractllm.WithLLM("gpt"), abstractllm.WithDefaults(abstractllm.WithModel("m")))
	chat := abstractllm.Chat{abstractllm.Message(abstractllm.RoleUser, "Hi")}
	for want, prompt := range map[string]abstractllm.Prompt{
		`"prompt": "Hi"`: hi,
		`"chat": {"messages": [{"role": "ROLE_USER", "parts": [{"text": "Hi"}]}]}`: chat,
	} {
		tokens, err := llm.CountTokens(t.Context(), prompt, abstractllm.WithSystemPrompt("s"),
			abstractllm.WithTools(abstractllm.Tool{Name: "f"}), abstractllm.WithTemperature(0))
		var wanted pb.CountTokensRequest
		check(t, protojson.Unmarshal(
			[]byte(`{"llm": "gpt", "system_prompt": "s", "tools": [{"name": "f"}], "model": "m", `+want+`}`), &wanted))
		if tokens != 42 || err != nil || !proto.Equal(server.last(), &wanted) {
			t.Errorf("%d, %v for %v", tokens, err, server.last())
		}
	}
}
