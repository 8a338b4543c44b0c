"""Recipes for somebody's own pictures, written after a look at them: a file a kind, `draft` what all have in common."""
