"""Tasks: what an architecture is worth."""
