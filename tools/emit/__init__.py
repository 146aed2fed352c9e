"""What is made of the table of generation parameters, a module for each language."""
