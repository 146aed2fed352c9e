"""Generated code of the AbstractLLM gRPC contract."""
