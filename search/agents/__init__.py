"""Agents: which architecture to try next."""
