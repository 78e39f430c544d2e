"""Patterns that classify one answer without a model: cheap, the same everywhere, and readable."""
