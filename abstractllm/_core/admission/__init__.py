"""Admission: which requests of an LLM run, which wait for their turn, and which are refused."""
