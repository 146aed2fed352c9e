"""Splitting an answer into reasoning, text and tool calls while it is written."""
