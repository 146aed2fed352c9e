"""Generators of the files that follow from the table of generation parameters, a module for each language."""
