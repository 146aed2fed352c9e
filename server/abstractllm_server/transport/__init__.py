"""Calls as gRPC carries them: their bounds, their end, the sockets they come through."""
