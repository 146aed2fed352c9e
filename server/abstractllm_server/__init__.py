"""The gRPC server: it decodes a request, asks an LLM of `abstractllm`, and encodes the answer."""
