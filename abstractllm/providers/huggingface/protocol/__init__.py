"""The messages and the channel between a provider's process and the processes that it starts."""
