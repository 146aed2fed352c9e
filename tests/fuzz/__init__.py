"""Fuzzing of all that strangers, and operators' files, can bring: `python -m tests.fuzz`."""
