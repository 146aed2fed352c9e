"""Turning a conversation into the prompt's tokens."""
