"""The models on this machine's disk, and their download from the hub."""
