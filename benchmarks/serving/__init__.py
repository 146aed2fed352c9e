"""Serving a local model, measured: the batching engine alone, our server, and the peer, on one model in one run.

.venv/bin/python -m benchmarks.serving --help

`benchmarks/README.md` says how to read the figures.
"""
