package abstractllm

import (
	"fmt"
	"strings"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
)

// Prompt is the input of a generation: a [String] or a [Chat].
type Prompt interface {
	isPrompt()
}

// String is a prompt of plain text.
type String string

// Chat is a conversation, oldest message first; its last message is the one to be answered.
type Chat []ChatMessage

func (String) isPrompt() {}
func (Chat) isPrompt()   {}

// ChatMessage is one turn of a conversation.
type ChatMessage struct {
	// Role is the speaker.
	Role Role
	// Parts are the content, in order.
	Parts []Part
}

// Message makes a message of text alone.
func Message(role Role, text string) ChatMessage {
	return ChatMessage{role, []Part{Text{Text: text}}}
}

// Text returns the text parts, joined.
func (m ChatMessage) Text() string {
	var joined strings.Builder
	for _, part := range m.Parts {
		if text, ok := part.(Text); ok {
			joined.WriteString(text.Text)
		}
	}
	return joined.String()
}

// Part is one piece of a message: a [Text], [Image], [ToolCall], [ToolResult] or [Reasoning]. Each has a ProviderState:
// opaque bytes of the provider, to be returned unchanged with the part in the next turn.
type Part interface {
	encode() *pb.Part
}

// Text is text in a message.
type Text struct {
	Text          string
	ProviderState []byte
}

// Image is a picture in a user's message, as bytes. The server never fetches one from an address.
type Image struct {
	// Data is the encoded file.
	Data []byte
	// MIMEType is the format of the file, such as "image/png".
	MIMEType      string
	ProviderState []byte
}

// ToolCall is the model's request to call a tool.
type ToolCall struct {
	// ID identifies the call; its ToolResult repeats it.
	ID string
	// Name is the name of the tool.
	Name string
	// ArgumentsJSON is a JSON object, as the model wrote it; it may break the tool's schema.
	ArgumentsJSON string
	ProviderState []byte
}

// ToolResult is what a tool returned, sent back to the model.
type ToolResult struct {
	// ToolCallID is the ID of the ToolCall that this answers.
	ToolCallID string
	// Content is what the tool returned, as text.
	Content string
	// IsError reports whether the tool failed; Content then says how.
	IsError       bool
	ProviderState []byte
}

// Reasoning is the thinking of a reasoning model before it answered.
type Reasoning struct {
	// Text is the reasoning or a summary of it; empty where only ProviderState carries it.
	Text          string
	ProviderState []byte
}

func (t Text) encode() *pb.Part {
	return &pb.Part{Part: &pb.Part_Text{Text: t.Text}, ProviderState: t.ProviderState}
}

func (i Image) encode() *pb.Part {
	image := &pb.Image{Data: i.Data, MimeType: i.MIMEType}
	return &pb.Part{Part: &pb.Part_Image{Image: image}, ProviderState: i.ProviderState}
}

func (c ToolCall) encode() *pb.Part {
	call := &pb.ToolCall{Id: c.ID, Name: c.Name, ArgumentsJson: c.ArgumentsJSON}
	return &pb.Part{Part: &pb.Part_ToolCall{ToolCall: call}, ProviderState: c.ProviderState}
}

func (r ToolResult) encode() *pb.Part {
	result := &pb.ToolResult{ToolCallId: r.ToolCallID, Content: r.Content, IsError: r.IsError}
	return &pb.Part{Part: &pb.Part_ToolResult{ToolResult: result}, ProviderState: r.ProviderState}
}

func (r Reasoning) encode() *pb.Part {
	reasoning := &pb.Reasoning{Text: r.Text}
	return &pb.Part{Part: &pb.Part_Reasoning{Reasoning: reasoning}, ProviderState: r.ProviderState}
}

func (c Chat) encode() (*pb.Chat, error) {
	messages := make([]*pb.ChatMessage, len(c))
	for index, message := range c {
		parts := make([]*pb.Part, len(message.Parts))
		for partIndex, part := range message.Parts {
			if part == nil {
				field := fmt.Sprintf("chat.messages[%d].parts[%d]", index, partIndex)
				return nil, invalidField(field, "a part", "nil")
			}
			parts[partIndex] = part.encode()
		}
		messages[index] = &pb.ChatMessage{Role: pb.Role(message.Role), Parts: parts}
	}
	return &pb.Chat{Messages: messages}, nil
}

func decodeMessage(message *pb.ChatMessage) ChatMessage {
	decoded := ChatMessage{Role: Role(message.GetRole())}
	for _, encoded := range message.GetParts() {
		if part := decodePart(encoded); part != nil {
			decoded.Parts = append(decoded.Parts, part)
		}
	}
	return decoded
}

// decodePart returns nil for a kind of part that only a newer contract has.
func decodePart(part *pb.Part) Part {
	state := part.GetProviderState()
	switch kind := part.GetPart().(type) {
	case *pb.Part_Text:
		return Text{kind.Text, state}
	case *pb.Part_Image:
		return Image{kind.Image.GetData(), kind.Image.GetMimeType(), state}
	case *pb.Part_ToolCall:
		call := kind.ToolCall
		return ToolCall{call.GetId(), call.GetName(), call.GetArgumentsJson(), state}
	case *pb.Part_ToolResult:
		result := kind.ToolResult
		return ToolResult{result.GetToolCallId(), result.GetContent(), result.GetIsError(), state}
	case *pb.Part_Reasoning:
		return Reasoning{kind.Reasoning.GetText(), state}
	}
	return nil
}
