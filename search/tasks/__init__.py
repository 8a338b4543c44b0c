"""Tasks: how architectures are evaluated."""
