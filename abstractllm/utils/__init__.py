"""Helpers that are not about models."""
