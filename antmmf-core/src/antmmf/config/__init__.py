"""A run's config: strict YAML with includes and overrides, its schema, and where every value came from."""
