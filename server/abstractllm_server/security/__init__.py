"""The callers: their tokens, certificates and roles."""
