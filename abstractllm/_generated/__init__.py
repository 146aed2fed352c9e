"""Code that `make generate` writes; what is here is imported through `parameters`, `requests` and `enums`."""
