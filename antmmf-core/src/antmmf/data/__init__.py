"""From annotations to batches: index, order, reading of samples, quarantine, loader."""
