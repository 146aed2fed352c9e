"""Version 1 of the AbstractLLM gRPC contract."""
