"""A comparison on one model in one run: the batching engine alone, our server, and the peer.

.venv/bin/python -m benchmarks.serving --help

`benchmarks/README.md` says how to read the figures.
"""
