"""One suite over every way to ask an LLM. A package, so that what its tests share ends with them."""
