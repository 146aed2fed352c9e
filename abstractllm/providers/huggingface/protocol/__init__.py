"""The messages and the channel between a provider's process and those that it starts."""
