"""Many answers at once: transformers' continuous batching, with every request's own parameters."""
