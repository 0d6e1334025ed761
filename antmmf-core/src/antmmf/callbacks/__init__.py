"""Callbacks that come with the core: a console, a file of JSON lines, TensorBoard."""
