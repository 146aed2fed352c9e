"""Code that `make generate` writes; it is imported through `abstractllm.parameters` and `abstractllm.requests`."""
