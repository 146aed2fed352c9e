package abstractllm_test

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"testing"
	"time"

	"github.com/abstractllm/abstractllm-go"
	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// fromJSON decodes a message of the contract.
func fromJSON[Message any, Pointer interface {
	*Message
	proto.Message
}](t *testing.T, text string) Pointer {
	t.Helper()
	var message Message
	check(t, protojson.Unmarshal([]byte(text), Pointer(&message)))
	return &message
}

const ending = `
	"finish_reason": "FINISH_REASON_STOP_SEQUENCE", "stop_sequence": "END",
	"usage": {"input_tokens": 5, "output_tokens": 0},
	"attempts": [
		{"llm": "gpt", "provider": "openai", "model": "m", "error_reason": "ERROR_REASON_RATE_LIMITED",
			"message": "slow down", "duration": "0.5s"},
		{"llm": "local", "error_reason": 99}, {"llm": "local"}],
	"timing": {"queued": "0s", "total": "1.5s"},
	"message": {"role": "ROLE_ASSISTANT", "parts": [
		{"reasoning": {"text": "hm"}, "provider_state": "AP8="}, {"text": "One"}, {"provider_state": "AP8="},
		{"image": {"data": "iVBO", "mime_type": "image/png"}},
		{"tool_call": {"id": "1", "name": "f", "arguments_json": "{}"}},
		{"tool_result": {"tool_call_id": "1", "content": "c"}}, {"text": " two"}]}`

func attempts() []abstractllm.Attempt {
	return []abstractllm.Attempt{
		{
			LLM: "gpt", Provider: "openai", Model: "m", ErrorReason: abstractllm.ReasonRateLimited,
			Message: "slow down", Duration: time.Second / 2,
		},
		{LLM: "local", ErrorReason: "99"},
		{LLM: "local"},
	}
}

func message() abstractllm.ChatMessage {
	return abstractllm.ChatMessage{Role: abstractllm.RoleAssistant, Parts: []abstractllm.Part{
		abstractllm.Reasoning{Text: "hm", ProviderState: []byte{0, 255}},
		abstractllm.Text{Text: "One"},
		abstractllm.Image{Data: []byte("\x89PN"), MIMEType: "image/png"},
		abstractllm.ToolCall{ID: "1", Name: "f", ArgumentsJSON: "{}"},
		abstractllm.ToolResult{ToolCallID: "1", Content: "c"},
		abstractllm.Text{Text: " two"},
	}}
}

const probabilities = `[{"token_id": 3, "token": "One", "token_bytes": "T25l", "logprob": -0.5,
	"top": [{"token_id": 4, "token": "a", "token_bytes": "YQ==", "logprob": -1.5}]}]`

func logprobs() []abstractllm.TokenLogprob {
	return []abstractllm.TokenLogprob{{
		TopLogprob: abstractllm.TopLogprob{TokenID: 3, Token: "One", TokenBytes: []byte("One"), Logprob: -0.5},
		Top:        []abstractllm.TopLogprob{{TokenID: 4, Token: "a", TokenBytes: []byte("a"), Logprob: -1.5}},
	}}
}

func TestAWholeAnswerIsDecodedFieldByField(t *testing.T) {
	server := serve(t)
	answer := fromJSON[pb.GenerateResponse](t, `{"id": "a1", "text": "One two", `+ending+`, "llm": "local",
		"provider": "huggingface", "model": "demo", "logprobs": `+probabilities+`, "dropped_parameters": ["p"]}`)
	server.generate = func(context.Context, *pb.GenerateRequest) (*pb.GenerateResponse, error) { return answer, nil }
	completion, err := client(t, server.address).Complete(t.Context(), hi)
	check(t, err)
	want := &abstractllm.Completion{
		ID: "a1", Text: "One two", Message: message(), FinishReason: abstractllm.FinishReasonStopSequence,
		StopSequence: "END", Usage: abstractllm.Usage{InputTokens: new(int64(5)), OutputTokens: new(int64(0))},
		LLM: "local", Provider: "huggingface", Model: "demo", Attempts: attempts(),
		Timing:   abstractllm.Timing{Queued: new(time.Duration(0)), Total: new(1500 * time.Millisecond)},
		Logprobs: logprobs(), DroppedParameters: []string{"p"},
	}
	if !reflect.DeepEqual(completion, want) {
		t.Errorf("got  %+v\nwant %+v", completion, want)
	}
	calls := []abstractllm.ToolCall{{ID: "1", Name: "f", ArgumentsJSON: "{}"}}
	if !reflect.DeepEqual(completion.ToolCalls(), calls) || completion.Reasoning() != "hm" ||
		completion.Message.Text() != "One two" {
		t.Errorf("got %v, %q, %q", completion.ToolCalls(), completion.Reasoning(), completion.Message.Text())
	}
}

func TestEveryEventIsDecodedAndOnesFromTheFutureAreSkipped(t *testing.T) {
	server := serve(t)
	newer := &pb.StreamGenerateResponse{}
	check(t, proto.Unmarshal([]byte{15<<3 | 2, 3, 'n', 'e', 'w'}, newer))
	event := fromJSON[pb.StreamGenerateResponse]
	server.stream = func(_ *pb.GenerateRequest, sender eventSender) error {
		return send(sender,
			event(t, `{"started": {"id": "a1", "llm": "local", "provider": "p", "model": "m", "dropped_parameters": ["x"]}}`),
			newer,
			event(t, `{"reasoning_delta": {"text": "hm"}}`),
			event(t, `{"text_delta": {"text": "One", "logprobs": `+probabilities+`}}`),
			event(t, `{"text_delta": {}}`),
			event(t, `{"tool_call_delta": {"index": 1, "id": "1", "name": "f", "arguments_fragment": "{}"}}`),
			newer,
			event(t, `{"finished": {`+ending+`}}`))
	}
	llm := client(t, server.address)
	var events []abstractllm.Event
	for event, err := range llm.Stream(t.Context(), hi) {
		check(t, err)
		events = append(events, event)
	}
	want := []abstractllm.Event{
		abstractllm.Started{ID: "a1", LLM: "local", Provider: "p", Model: "m", DroppedParameters: []string{"x"}},
		abstractllm.ReasoningDelta{Text: "hm"},
		abstractllm.TextDelta{Text: "One", Logprobs: logprobs()},
		abstractllm.TextDelta{},
		abstractllm.ToolCallDelta{Index: 1, ID: "1", Name: "f", ArgumentsFragment: "{}"},
		abstractllm.Finished{
			FinishReason: abstractllm.FinishReasonStopSequence, StopSequence: "END",
			Usage:    abstractllm.Usage{InputTokens: new(int64(5)), OutputTokens: new(int64(0))},
			Attempts: attempts(), Message: message(),
			Timing: abstractllm.Timing{Queued: new(time.Duration(0)), Total: new(1500 * time.Millisecond)},
		},
	}
	if !reflect.DeepEqual(events, want) {
		t.Errorf("got  %+v\nwant %+v", events, want)
	}
	var texts []string
	for text, err := range llm.StreamText(t.Context(), hi) {
		check(t, err)
		texts = append(texts, text)
	}
	if !reflect.DeepEqual(texts, []string{"One"}) {
		t.Errorf("got %q", texts)
	}
}

func TestAnUnknownEnumValuePassesThrough(t *testing.T) {
	server := serve(t)
	server.generate = func(context.Context, *pb.GenerateRequest) (*pb.GenerateResponse, error) {
		return &pb.GenerateResponse{FinishReason: 99, Message: &pb.ChatMessage{Role: 98}}, nil
	}
	completion, err := client(t, server.address).Complete(t.Context(), hi)
	check(t, err)
	if completion.FinishReason != 99 || completion.FinishReason.String() != "99" || completion.Message.Role != 98 {
		t.Errorf("got %+v", completion)
	}
}

func TestNamesOfValues(t *testing.T) {
	for want, value := range map[string]interface{ String() string }{
		"user":             abstractllm.RoleUser,
		"max_tokens":       abstractllm.FinishReasonMaxTokens,
		"unspecified":      abstractllm.FinishReason(0),
		"xhigh":            abstractllm.ReasoningEffortXHigh,
		"required":         abstractllm.ToolChoiceRequired,
		"drop_unsupported": abstractllm.ParametersPolicyDropUnsupported,
		"ready":            abstractllm.LLMStateReady,
		"int4":             abstractllm.QuantizationInt4,
		"-7":               abstractllm.Quantization(-7),
	} {
		if value.String() != want {
			t.Errorf("got %q instead of %q", value, want)
		}
	}
}

func TestLeavingAStreamEndsItAtTheServer(t *testing.T) {
	server := serve(t)
	server.answerForever()
	llm := client(t, server.address)

	for range llm.StreamText(t.Context(), hi) {
		break
	}
	server.awaitRelease(t)

	next, stop := iter.Pull2(llm.Stream(t.Context(), hi))
	if _, err, ok := next(); err != nil || !ok {
		t.Fatal(err)
	}
	stop()
	server.awaitRelease(t)

	func() {
		defer func() { _ = recover() }()
		for range llm.Stream(t.Context(), hi) {
			panic("a fault of the loop's own")
		}
	}()
	server.awaitRelease(t)
}

func TestAStreamThatIsNotReadIsNotSent(t *testing.T) {
	server := serve(t)
	server.answerForever()
	_, stop := iter.Pull2(client(t, server.address).Stream(t.Context(), hi))
	stop()
	if server.calls() != 0 {
		t.Errorf("%d calls were sent", server.calls())
	}
}

func TestEachLoopOverAStreamIsACallOfItsOwn(t *testing.T) {
	server := serve(t)
	server.answerWith("There")
	texts := client(t, server.address).StreamText(t.Context(), hi)
	for range 2 {
		for text, err := range texts {
			if text != "There" || err != nil {
				t.Errorf("%q, %v", text, err)
			}
		}
	}
	if server.calls() != 2 {
		t.Errorf("%d calls instead of 2", server.calls())
	}
}

func TestCancellingTheContextEndsTheCallHereAndAtTheServer(t *testing.T) {
	server := serve(t)
	server.answerForever()
	llm := client(t, server.address)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-server.entered
		cancel()
	}()
	_, err := llm.Generate(ctx, hi)
	if !hasClass(err, abstractllm.ErrGenerationCancelled) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	server.awaitRelease(t)

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range llm.StreamText(ctx, hi) {
		last = err
		cancel()
	}
	if !hasClass(last, abstractllm.ErrGenerationCancelled) || !errors.Is(last, context.Canceled) {
		t.Errorf("got %v", last)
	}
	server.awaitRelease(t)
}

func TestADeadlineEndsTheCallHereAndAtTheServer(t *testing.T) {
	server := serve(t)
	soon := 500 * time.Millisecond
	timeout := abstractllm.WithTimeout(soon)
	patient := client(t, server.address, abstractllm.WithDefaults(abstractllm.WithTimeout(time.Hour)))
	hasty := client(t, server.address, abstractllm.WithDefaults(timeout))
	for _, llm := range []*abstractllm.RemoteLLM{patient, hasty} { // connects
		_, err := llm.CountTokens(t.Context(), hi, abstractllm.WithTimeout(guard))
		check(t, err)
	}
	server.answerForever()
	for name, ask := range map[string]func() error{
		"the context's": func() error {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			_, err := patient.Generate(ctx, hi)
			return err
		},
		"the call's": func() error {
			_, err := patient.Generate(t.Context(), hi, timeout)
			return err
		},
		"the client's": func() error {
			_, err := hasty.Generate(t.Context(), hi)
			return err
		},
		"a stream's": func() (last error) {
			for _, err := range patient.Stream(t.Context(), hi, timeout) {
				last = err
			}
			return last
		},
	} {
		err := ask()
		if !hasClass(err, abstractllm.ErrGenerationTimeout) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v", name, err)
		}
		server.awaitRelease(t)
	}
}

func TestClosingTheClientEndsItsCalls(t *testing.T) {
	server := serve(t)
	server.answerForever()
	llm := client(t, server.address)
	go func() {
		<-server.entered
		_ = llm.Close()
	}()
	_, err := llm.Generate(t.Context(), hi)
	for range 2 {
		failure, ok := errors.AsType[*abstractllm.Error](err)
		if !ok || !hasClass(err, abstractllm.ErrGenerationCancelled) || failure.Message != "the client is closed" {
			t.Errorf("got %v", err)
		}
		_, err = llm.Generate(t.Context(), hi) // and so do later ones
	}
	server.awaitRelease(t)
	check(t, llm.Close())
}
