"""Decides which architecture: search spaces, tasks, agents, and the loop that joins them."""

__version__ = "0.1.0"
