"""Answers held to a schema, an expression, a grammar or a call of a tool."""
