"""Metrics: rows of a whole split in, figures with intervals out."""
