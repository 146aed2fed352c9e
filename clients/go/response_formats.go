package abstractllm

import pb "github.com/abstractllm/abstractllm-go/abstractllmv1"

// ResponseFormat is the form that an answer must have: a [JSONObjectFormat], [JSONSchemaFormat], [RegexFormat] or
// [GrammarFormat].
type ResponseFormat interface {
	encodeFormat() *pb.ResponseFormat
}

// JSONObjectFormat asks for any JSON object.
type JSONObjectFormat struct{}

// JSONSchemaFormat asks for JSON that follows a schema.
type JSONSchemaFormat struct {
	// Name is the name of the schema; some providers show it to the model.
	Name string
	// SchemaJSON is the JSON Schema, as JSON text.
	SchemaJSON string
	// Strict is true where the provider must enforce the schema, false where it need only aim at it, and nil for the
	// provider's default.
	Strict *bool
}

// RegexFormat asks for text that matches a regular expression from its first to its last character.
type RegexFormat string

// GrammarFormat asks for text of a context-free grammar, in the notation that the LLM's provider documents.
type GrammarFormat string

func (JSONObjectFormat) encodeFormat() *pb.ResponseFormat {
	return &pb.ResponseFormat{Format: &pb.ResponseFormat_JsonObject{JsonObject: &pb.JsonObjectFormat{}}}
}

func (f JSONSchemaFormat) encodeFormat() *pb.ResponseFormat {
	schema := &pb.JsonSchemaFormat{Name: f.Name, SchemaJson: f.SchemaJSON, Strict: f.Strict}
	return &pb.ResponseFormat{Format: &pb.ResponseFormat_JsonSchema{JsonSchema: schema}}
}

func (f RegexFormat) encodeFormat() *pb.ResponseFormat {
	return &pb.ResponseFormat{Format: &pb.ResponseFormat_Regex{Regex: string(f)}}
}

func (f GrammarFormat) encodeFormat() *pb.ResponseFormat {
	return &pb.ResponseFormat{Format: &pb.ResponseFormat_Grammar{Grammar: string(f)}}
}
