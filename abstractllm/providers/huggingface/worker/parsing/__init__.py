"""From what a model writes to reasoning, text and tool calls, as it is written."""
