"""Search spaces: what can be built."""
