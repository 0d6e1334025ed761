"""Recipes: YAML configs, run by name."""
