"""What the benchmarks train: as small as it can be, so that only the loop around it is left to measure."""
