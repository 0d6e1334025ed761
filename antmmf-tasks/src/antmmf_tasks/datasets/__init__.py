"""Data sets: one module each, found by name through the entry points of this distribution."""
