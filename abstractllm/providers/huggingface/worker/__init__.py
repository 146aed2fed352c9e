"""The engine process: one local model, torch, and nothing of the network."""
