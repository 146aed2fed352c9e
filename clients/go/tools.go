package abstractllm

import pb "github.com/abstractllm/abstractllm-go/abstractllmv1"

// Tool is a function that the model may ask to have called.
type Tool struct {
	// Name has 1 to 64 letters, digits, _ or -.
	Name string
	// Description tells the model what the tool does and when to call it.
	Description string
	// ParametersJSONSchema is the JSON Schema of the arguments; empty where the tool takes none.
	ParametersJSONSchema string
}

// ToolChoice is a mode, or the name of the one tool that must be called; one of the two is set.
type ToolChoice struct {
	Mode ToolChoiceMode
	Name string
}

func (t Tool) encode() *pb.Tool {
	return &pb.Tool{Name: t.Name, Description: t.Description, ParametersJsonSchema: t.ParametersJSONSchema}
}

func (c ToolChoice) encode() (*pb.ToolChoice, error) {
	switch {
	case c.Name != "" && c.Mode != 0:
		return nil, invalidField("tool_choice", "a mode or a name, not both", c.Mode.String()+" and "+c.Name)
	case c.Name != "":
		return &pb.ToolChoice{Choice: &pb.ToolChoice_Name{Name: c.Name}}, nil
	case c.Mode != 0:
		return &pb.ToolChoice{Choice: &pb.ToolChoice_Mode{Mode: pb.ToolChoiceMode(c.Mode)}}, nil
	}
	return &pb.ToolChoice{}, nil
}
