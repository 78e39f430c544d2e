"""What patterns can tell of one answer: cheap, the same everywhere, and readable. No model is asked."""
