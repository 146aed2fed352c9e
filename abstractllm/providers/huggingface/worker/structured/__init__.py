"""Answers that must have a format: JSON, a JSON schema, a regular expression, a grammar or a tool call."""
