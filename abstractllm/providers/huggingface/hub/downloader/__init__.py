"""The process that downloads a model: the hub's own library and its environment, and nothing of the server."""
