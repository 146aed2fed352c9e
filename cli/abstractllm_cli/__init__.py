"""The command `abstractllm`."""
