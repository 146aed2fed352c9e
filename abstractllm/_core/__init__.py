"""The mechanisms behind every LLM: the way of a request, the synchronous front, stop sequences, memory."""
