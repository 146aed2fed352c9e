"""Conversion between the contract's messages and the library's values."""
