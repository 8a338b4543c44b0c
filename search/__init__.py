"""Decides which architecture: search spaces, tasks, agents, and the loop that joins them."""
