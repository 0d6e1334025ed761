"""Callbacks: who listens to a run's events."""
