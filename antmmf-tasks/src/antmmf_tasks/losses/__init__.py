"""Losses; each is a component named in the config."""
