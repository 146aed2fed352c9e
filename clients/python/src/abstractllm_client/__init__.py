"""The Python client of AbstractLLM over gRPC."""
