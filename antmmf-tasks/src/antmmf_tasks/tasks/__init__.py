"""Tasks: the modules that are trained."""
