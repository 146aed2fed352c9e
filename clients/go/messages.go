package abstractllm

import (
	"fmt"
	"strings"

	pb "github.com/abstractllm/abstractllm-go/abstractllmv1"
)

// Prompt is what an LLM is asked: a [String] or a [Chat].
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
	// Role tells who speaks.
	Role Role
	// Parts are what is said, in order.
	Parts []Part
}

// Message makes a message of text alone.
func Message(role Role, text string) ChatMessage {
	return ChatMessage{role, []Part{Text{Text: text}}}
}

// Text gives the text parts, joined.
func (message ChatMessage) Text() string {
	var joined strings.Builder
	for _, part := range message.Parts {
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

// Image is a picture in a user's message, as bytes; addresses are never fetched.
type Image struct {
	// Data is the encoded file.
	Data []byte
	// MIMEType is its format, such as "image/png".
	MIMEType      string
	ProviderState []byte
}

// ToolCall is the model's request to call a tool.
type ToolCall struct {
	// ID identifies the call; its ToolResult repeats it.
	ID string
	// Name is the tool's.
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
	// IsError is true where the tool failed and Content says how.
	IsError       bool
	ProviderState []byte
}

// Reasoning is what a reasoning model thought before it answered.
type Reasoning struct {
	// Text is the thinking or a summary of it; empty where only ProviderState carries it.
	Text          string
	ProviderState []byte
}

func (part Text) encode() *pb.Part {
	return &pb.Part{Part: &pb.Part_Text{Text: part.Text}, ProviderState: part.ProviderState}
}

func (part Image) encode() *pb.Part {
	image := &pb.Image{Data: part.Data, MimeType: part.MIMEType}
	return &pb.Part{Part: &pb.Part_Image{Image: image}, ProviderState: part.ProviderState}
}

func (part ToolCall) encode() *pb.Part {
	call := &pb.ToolCall{Id: part.ID, Name: part.Name, ArgumentsJson: part.ArgumentsJSON}
	return &pb.Part{Part: &pb.Part_ToolCall{ToolCall: call}, ProviderState: part.ProviderState}
}

func (part ToolResult) encode() *pb.Part {
	result := &pb.ToolResult{ToolCallId: part.ToolCallID, Content: part.Content, IsError: part.IsError}
	return &pb.Part{Part: &pb.Part_ToolResult{ToolResult: result}, ProviderState: part.ProviderState}
}

func (part Reasoning) encode() *pb.Part {
	reasoning := &pb.Reasoning{Text: part.Text}
	return &pb.Part{Part: &pb.Part_Reasoning{Reasoning: reasoning}, ProviderState: part.ProviderState}
}

func (chat Chat) encode() (*pb.Chat, error) {
	messages := make([]*pb.ChatMessage, len(chat))
	for index, message := range chat {
		parts := make([]*pb.Part, len(message.Parts))
		for at, part := range message.Parts {
			if part == nil {
				field := fmt.Sprintf("chat.messages[%d].parts[%d]", index, at)
				return nil, refused(field, "a part of a message", "nil")
			}
			parts[at] = part.encode()
		}
		messages[index] = &pb.ChatMessage{Role: pb.Role(message.Role), Parts: parts}
	}
	return &pb.Chat{Messages: messages}, nil
}

func decodeMessage(message *pb.ChatMessage) ChatMessage {
	found := ChatMessage{Role: Role(message.GetRole())}
	for _, part := range message.GetParts() {
		if decoded := decodePart(part); decoded != nil {
			found.Parts = append(found.Parts, decoded)
		}
	}
	return found
}

// decodePart gives nil for a kind of part that only newer contracts know.
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

// Tool is a function that the model may ask to have called.
type Tool struct {
	// Name is 1 to 64 letters, digits, _ or -.
	Name string
	// Description tells the model what it does and when to call it.
	Description string
	// ParametersJSONSchema is the JSON Schema of its arguments; empty: it takes none.
	ParametersJSONSchema string
}

// ToolChoice is a mode, or the name of the one tool that must be called.
type ToolChoice struct {
	Mode ToolChoiceMode
	Name string
}

// ResponseFormat is the form that an answer must have: a [JSONObjectFormat], [JSONSchemaFormat], [RegexFormat] or
// [GrammarFormat].
type ResponseFormat interface {
	encodeFormat() *pb.ResponseFormat
}

// JSONObjectFormat asks for any JSON object.
type JSONObjectFormat struct{}

// JSONSchemaFormat asks for JSON that follows a schema.
type JSONSchemaFormat struct {
	// Name is the schema's; some providers show it to the model.
	Name string
	// SchemaJSON is the JSON Schema, as JSON text.
	SchemaJSON string
	// Strict tells whether the provider must enforce the schema, not merely aim at it; nil: the provider's default.
	Strict *bool
}

// RegexFormat asks for text that matches a regular expression from its first to its last character.
type RegexFormat string

// GrammarFormat asks for text of a context-free grammar, in the notation that the LLM's provider documents.
type GrammarFormat string

func (JSONObjectFormat) encodeFormat() *pb.ResponseFormat {
	return &pb.ResponseFormat{Format: &pb.ResponseFormat_JsonObject{JsonObject: &pb.JsonObjectFormat{}}}
}

func (format JSONSchemaFormat) encodeFormat() *pb.ResponseFormat {
	schema := &pb.JsonSchemaFormat{Name: format.Name, SchemaJson: format.SchemaJSON, Strict: format.Strict}
	return &pb.ResponseFormat{Format: &pb.ResponseFormat_JsonSchema{JsonSchema: schema}}
}

func (format RegexFormat) encodeFormat() *pb.ResponseFormat {
	return &pb.ResponseFormat{Format: &pb.ResponseFormat_Regex{Regex: string(format)}}
}

func (format GrammarFormat) encodeFormat() *pb.ResponseFormat {
	return &pb.ResponseFormat{Format: &pb.ResponseFormat_Grammar{Grammar: string(format)}}
}
