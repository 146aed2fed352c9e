"""The providers. Each is imported by the factory when it is first asked for."""
