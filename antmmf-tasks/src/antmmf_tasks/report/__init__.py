"""One page a run: curves, confusions, and what it got wrong."""
