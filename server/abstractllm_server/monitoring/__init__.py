"""Ports for probes and scrapers, served from threads of their own, and the heartbeats that they judge by."""
