"""Recipes: one YAML file an experiment, one folder a paper."""
