"""A checkpoint: its files, what it is, and whether all of it was loaded; transformers only warns of most of that."""
