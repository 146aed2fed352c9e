"""Calls as gRPC carries them: their limits, their end, and the sockets they come through."""
